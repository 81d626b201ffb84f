"""The seam between the client and the wire: what a transport can do, and which one a connection asks for.

Every method is a coroutine, so that one client logic serves both worlds. Those of a blocking transport block and never
suspend: `lemica_client.blocking` runs them without an event loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from lemica_client.connection import Connection
from lemica_client.errors import MissingDependencyError, ServerError
from lemica_client.protocol import InputTensor
from lemica_client.shared_memory import Region

Arrays = dict[str, NDArray[Any]]
REGION_TIMEOUT_S = 10.0  # to register or unregister shared memory: a call that does no work


class Transport(Protocol):
    """One connection to one server.

    A blocking one may be used by several threads, an asyncio one by the tasks of one event loop. All methods but
    `close` and `sleep` raise the errors of `lemica_client.errors`; times are in seconds.
    """

    can_stream_frames: bool  # False: only encoded files come through a stream

    async def is_ready(self, model: str, timeout_s: float) -> bool:
        """Return whether the server and this model are ready."""

    async def model_config(self, model: str, timeout_s: float) -> dict[str, Any]:
        """Return the model's configuration as the server has loaded it (the fields of config.pbtxt)."""

    async def models(self, timeout_s: float) -> list[str]:
        """Return the names of the models that the server has ready, sorted."""

    async def infer(
        self,
        model: str,
        inputs: list[InputTensor],
        outputs: list[str],
        timeout_s: float,
        regions: Mapping[str, Region],
    ) -> Arrays:
        """Send one request and return the outputs that it names; those with a region come through it."""

    def stream(
        self, model: str, inputs: list[InputTensor], outputs: list[str], timeout_s: float
    ) -> AsyncGenerator[Arrays, None]:
        """Send one request and yield each response's outputs; closing the generator cancels on the server."""

    async def register(self, region: Region) -> None:
        """Tell the server of a region of shared memory."""

    async def unregister(self, region: Region) -> None:
        """Make the server forget it; refused while a request uses it."""

    async def sleep(self, seconds: float) -> None:
        """Wait, in this transport's world."""

    async def close(self) -> None:
        """Close the connection; requests in flight are cancelled where the protocol can do that."""


def open_transport(connection: Connection, is_async: bool = False) -> Transport:
    """Return the transport for a connection; nothing is sent yet.

    Raises
    ------
    MissingDependencyError
        If tritonclient is not installed.
    """
    try:
        return _make(connection, is_async)
    except ModuleNotFoundError as exc:
        raise MissingDependencyError(
            f"talking to a server needs {exc.name}: install the extra `client` "
            "(pip install '.[client]' in a checkout of lemica)"
        ) from exc


def _make(connection: Connection, is_async: bool) -> Transport:
    # Imported here: each needs tritonclient and its own protocol's packages.
    if connection.address.scheme == "grpc" and is_async:
        from lemica_client.transport_grpc_aio import AsyncGrpcTransport  # noqa: PLC0415

        return AsyncGrpcTransport(connection)
    if connection.address.scheme == "grpc":
        from lemica_client.transport_grpc import GrpcTransport  # noqa: PLC0415

        return GrpcTransport(connection)
    if is_async:
        from lemica_client.transport_http_aio import AsyncHttpTransport  # noqa: PLC0415

        return AsyncHttpTransport(connection)
    from lemica_client.transport_http import HttpTransport  # noqa: PLC0415

    return HttpTransport(connection)


def ready_models(index: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the names in a server's repository index that can be asked, sorted.

    Examples
    --------
    >>> ready_models([{"name": "b", "state": "READY"}, {"name": "broken", "state": "UNAVAILABLE"}, {"name": "c"}])
    ['b']
    """
    return sorted({entry["name"] for entry in index if entry.get("state") == "READY"})


def to_infer_inputs(infer_input: Callable[..., Any], tensors: list[InputTensor]) -> list[Any]:
    """Return tritonclient's inputs; `infer_input` is the ``InferInput`` of one of its two protocols."""
    filled = []
    for tensor in tensors:
        filled.append(infer_input(tensor.name, list(tensor.array.shape), tensor.datatype))
        filled[-1].set_data_from_numpy(tensor.array)
    return filled


def to_requested_outputs(
    requested_output: Callable[..., Any], names: list[str], regions: Mapping[str, Region]
) -> list[Any]:
    """Return tritonclient's ``InferRequestedOutput`` of each name, pointed at its region where it has one."""
    requested = []
    for name in names:
        requested.append(requested_output(name))
        if name in regions:
            requested[-1].set_shared_memory(regions[name].name, regions[name].byte_size)
    return requested


def read_outputs(result: Any, names: list[str], regions: Mapping[str, Region]) -> Arrays:
    """Return the named outputs of tritonclient's ``InferResult``; a missing one is a `ServerError`."""
    arrays = {name: _read(result, name, regions.get(name)) for name in names}
    if missing := [name for name in names if arrays[name] is None]:
        raise ServerError(f"the server's answer has no output {', '.join(missing)}")
    return arrays


def read_response(result: Any, names: list[str]) -> Arrays:
    """Return those of the named outputs that one response of a stream has."""
    arrays = {name: _read(result, name, None) for name in names}
    return {name: array for name, array in arrays.items() if array is not None}


def _read(result: Any, name: str, region: Region | None) -> Any:
    if region is None:
        return result.as_numpy(name)
    output = result.get_output(name)
    if output is None:
        return None
    shape = output["shape"] if isinstance(output, dict) else output.shape
    return region.read([int(size) for size in shape])
