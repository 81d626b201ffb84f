"""Errors of the serving engine.

LemicaError
├── InvalidRequestError      the request can never be served as it is (gRPC INVALID_ARGUMENT)
├── ModelLoadError           the model folder is broken; the model does not load
├── EngineUnavailableError   not now: queue full, shutting down (gRPC UNAVAILABLE)
├── DeadlineExceededError    the request's own time limit passed (gRPC UNAVAILABLE)
├── RequestCancelledError    the client went away (gRPC CANCELLED)
└── GenerationError          the request failed inside the engine (gRPC INTERNAL)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class LemicaError(Exception):
    """Base of every error that the engine raises on purpose.

    Attributes
    ----------
    kind : str
        The outcome of a request that ends with it, in metrics and logs.
    """

    kind = "failed"


class InvalidRequestError(LemicaError):
    """The request can never be served; the message says what was got and what is allowed."""

    kind = "invalid"


class ModelLoadError(LemicaError):
    """The model folder is broken; the message names the file and the reason."""


class EngineUnavailableError(LemicaError):
    """The engine cannot take the request now; the same request may succeed later.

    Attributes
    ----------
    reason : str
        In metrics: ``queue_full``, ``deadline``, or ``closing`` (the default) for a model that goes or is gone.
    """

    kind = "unavailable"

    def __init__(self, message: str, *, reason: str = "closing") -> None:
        super().__init__(message)
        self.reason = reason


class DeadlineExceededError(LemicaError):
    """The request's time limit passed before its video was ready."""

    kind = "deadline"


class RequestCancelledError(LemicaError):
    """The client cancelled the request."""

    kind = "cancelled"


class GenerationError(LemicaError):
    """The request failed while it was computed; other requests are not affected."""


def of_row(error: LemicaError, row: int, num_rows: int) -> LemicaError:
    """Return the error of one row of several as one that names it, with its cause; of a lone row, as it is."""
    if num_rows == 1:
        return error
    named = type(error)(f"row {row}: {error}")
    named.__dict__.update(error.__dict__)
    named.__cause__ = error.__cause__
    return named


@contextmanager
def naming_row(row: int, num_rows: int) -> Iterator[None]:
    """Let what is raised here name its row, see `of_row`."""
    try:
        yield
    except LemicaError as error:
        raise of_row(error, row, num_rows) from error.__cause__
