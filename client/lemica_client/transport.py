"""The seam between the client and the wire: what a transport can do, and which one a URL asks for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

from numpy.typing import NDArray

from lemica_client.errors import InvalidRequestError, MissingDependencyError, ServerError
from lemica_client.protocol import InputTensor

_URL = re.compile(
    r"(?:(?P<scheme>grpc|http)://)?(?P<host>[\w.-]+|\[[0-9a-f:.]+\]):(?P<port>[0-9]{1,5})/?", re.IGNORECASE
)


class Transport(Protocol):
    """One connection to one server; every method may be called from several threads.

    All methods but `close` raise the errors of `lemica_client.errors`; times are in seconds.
    """

    def is_ready(self, model: str, timeout_s: float) -> bool:
        """Return whether the server and this model are ready."""

    def model_config(self, model: str, timeout_s: float) -> dict[str, Any]:
        """Return the model's configuration as the server has loaded it (the fields of config.pbtxt)."""

    def infer(
        self, model: str, inputs: list[InputTensor], outputs: list[str], timeout_s: float
    ) -> dict[str, NDArray[Any]]:
        """Send one request and return the outputs that it names."""

    def close(self) -> None:
        """Close the connection; requests in flight are cancelled where the protocol can do that."""


class Address(NamedTuple):
    """Where a server is and what it speaks; `netloc` is ``host:port``."""

    scheme: Literal["grpc", "http"]
    netloc: str


def parse_url(url: str) -> Address:
    """Read ``grpc://host:port``, ``http://host:port`` or a plain ``host:port`` (gRPC).

    Raises
    ------
    InvalidRequestError
        For every other form; nothing is guessed but the scheme.

    Examples
    --------
    >>> parse_url("localhost:8001")
    Address(scheme='grpc', netloc='localhost:8001')
    >>> parse_url("http://[::1]:8000/")
    Address(scheme='http', netloc='[::1]:8000')
    """
    match = _URL.fullmatch(url)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise InvalidRequestError(
            f"url: got {url!r}; allowed are grpc://HOST:PORT, http://HOST:PORT and HOST:PORT (gRPC), "
            "such as grpc://127.0.0.1:8001"
        )
    is_http = (match["scheme"] or "").lower() == "http"
    return Address("http" if is_http else "grpc", f"{match['host']}:{match['port']}")


def open_transport(url: str) -> Transport:
    """Return the transport for a URL; nothing is sent yet.

    Raises
    ------
    InvalidRequestError
        If the URL cannot be read.
    MissingDependencyError
        If tritonclient is not installed.
    """
    address = parse_url(url)
    try:
        if address.scheme == "grpc":
            from lemica_client.transport_grpc import GrpcTransport  # noqa: PLC0415  (lazy: needs tritonclient)

            return GrpcTransport(address.netloc)
        from lemica_client.transport_http import HttpTransport  # noqa: PLC0415

        return HttpTransport(address.netloc)
    except ModuleNotFoundError as exc:
        raise MissingDependencyError(
            f"talking to a server needs {exc.name}: install the extra `client` (pip install 'lemica[client]')"
        ) from exc


def to_infer_inputs(infer_input: Callable[..., Any], tensors: list[InputTensor]) -> list[Any]:
    """Return tritonclient's inputs; `infer_input` is the ``InferInput`` of one of its two protocols."""
    filled = []
    for tensor in tensors:
        filled.append(infer_input(tensor.name, list(tensor.array.shape), tensor.datatype))
        filled[-1].set_data_from_numpy(tensor.array)
    return filled


def read_outputs(result: Any, names: list[str]) -> dict[str, NDArray[Any]]:
    """Return the named outputs of tritonclient's ``InferResult``; a missing one is a `ServerError`."""
    arrays = {name: result.as_numpy(name) for name in names}
    if missing := [name for name in names if arrays[name] is None]:
        raise ServerError(f"the server's answer has no output {', '.join(missing)}")
    return arrays
