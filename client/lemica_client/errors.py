"""Errors of the client.

LemicaClientError
├── InvalidRequestError      refused as it is, by the server or here before sending (INVALID_ARGUMENT, HTTP 400)
├── ModelNotFoundError       the server has no such model (NOT_FOUND, HTTP 404)
├── ServerUnavailableError   no connection, or not now: starting, queue full, deadline not met (UNAVAILABLE, HTTP 503)
│   └── ServerUnreachableError   no connection came about: no server there, or one that is not trusted
├── RequestTimeoutError      no answer within `timeout_s` (DEADLINE_EXCEEDED, HTTP 408 and 504)
├── RequestCancelledError    the request was cancelled before its video was ready (CANCELLED, HTTP 499)
├── ServerError              everything else that the server answers (INTERNAL, HTTP 500, ...)
├── ClientClosedError        the client was closed before
└── MissingDependencyError   a package of an extra is not installed; the message names the extra

Which error a failure becomes is decided by its status code: the protocol's, or the one in front of a stream's message.
The words themselves decide nothing.
"""

from __future__ import annotations


class LemicaClientError(Exception):
    """Base of every error that the client raises on purpose.

    Attributes
    ----------
    status : str or None
        The code as the server gave it: ``"StatusCode.UNAVAILABLE"`` over gRPC, ``"503"`` over HTTP; None for a
        failure that has none, such as a refused HTTP connection.
    """

    def __init__(self, message: str, *, status: str | None = None) -> None:
        super().__init__(message)
        self.status = status


class InvalidRequestError(LemicaClientError, ValueError):
    """The request can never be served as it is; the message says what was got and what is allowed."""


class ModelNotFoundError(LemicaClientError):
    """The server has no model of this name, or no version of it."""


class ServerUnavailableError(LemicaClientError):
    """The server cannot be reached or cannot take the request now; the same request may succeed later.

    Attributes
    ----------
    may_be_running : bool
        Whether the connection was lost after the request was sent: the server may be working on it all the same. Such
        a request is never sent again by itself.
    """

    def __init__(self, message: str, *, status: str | None = None, may_be_running: bool = False) -> None:
        super().__init__(message, status=status)
        self.may_be_running = may_be_running


class ServerUnreachableError(ServerUnavailableError):
    """No connection to the server came about; the message names its address."""


class RequestTimeoutError(LemicaClientError, TimeoutError):
    """No answer came within the time limit of the call."""


class RequestCancelledError(LemicaClientError):
    """The request was cancelled before its video was ready."""


class ServerError(LemicaClientError):
    """The server failed on this request, or answered something that the client does not understand."""


class ClientClosedError(LemicaClientError, RuntimeError):
    """The client was closed; make a new one."""


class MissingDependencyError(LemicaClientError, ImportError):
    """A package that this call needs is not installed; the message names the extra that has it."""


GRPC_ERRORS: dict[str, type[LemicaClientError]] = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "NOT_FOUND": ModelNotFoundError,
    "UNAVAILABLE": ServerUnavailableError,
    "DEADLINE_EXCEEDED": RequestTimeoutError,
    "CANCELLED": RequestCancelledError,
}
GRPC_CODES = {*GRPC_ERRORS, "INTERNAL"}
HTTP_ERRORS: dict[str, type[LemicaClientError]] = {
    "400": InvalidRequestError,
    "404": ModelNotFoundError,
    "408": RequestTimeoutError,
    "413": InvalidRequestError,  # a proxy's limit on the body: the prompt is too long
    "429": ServerUnavailableError,  # a gateway's rate limit
    "499": RequestCancelledError,  # of newer servers; 24.10 says 400 for what the server itself cancelled
    "502": ServerUnavailableError,  # a proxy whose server is away
    "503": ServerUnavailableError,
    "504": RequestTimeoutError,
}


def error_from_status(status: str | None, message: str) -> LemicaClientError:
    """Return the error that a status code stands for.

    Parameters
    ----------
    status : str or None
        As tritonclient gives it: ``"StatusCode.NAME"`` over gRPC, the number over HTTP, None without an answer.
    message : str
        The server's words, kept as they are, but for a gRPC code in front, ``"UNAVAILABLE: "``. Streams name it there,
        because over HTTP their status says nothing; it counts more than `status`.

    Examples
    --------
    >>> error_from_status("StatusCode.NOT_FOUND", "no model 'x'")
    ModelNotFoundError("no model 'x'")
    >>> error_from_status("500", "out of memory")
    ServerError('out of memory')
    """
    named, colon, words = message.partition(": ")
    if colon and named in GRPC_CODES:
        status, message = f"StatusCode.{named}", words
    code = (status or "").removeprefix("StatusCode.")
    error_class = GRPC_ERRORS.get(code) or HTTP_ERRORS.get(code) or ServerError
    return error_class(message, status=status)
