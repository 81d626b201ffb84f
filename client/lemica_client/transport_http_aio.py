"""HTTP for asyncio: what `transport_http` says of cancelling holds here too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
from tritonclient.http.aio import InferenceServerClient, InferInput, InferRequestedOutput

from lemica_client.connection import Connection, Tls
from lemica_client.errors import ClientClosedError
from lemica_client.http_errors import HttpErrors
from lemica_client.protocol import InputTensor
from lemica_client.shared_memory import Region
from lemica_client.sse import read_line, refusal, stream_body, stream_headers, stream_path
from lemica_client.transport import (
    REGION_TIMEOUT_S,
    Arrays,
    read_outputs,
    ready_models,
    to_infer_inputs,
    to_requested_outputs,
)

_ERRORS = HttpErrors(
    late=(TimeoutError,),
    lost=(aiohttp.ClientError, OSError),
    before=(aiohttp.ClientConnectorError,),  # certificates that are not trusted included
)


class AsyncHttpTransport:
    """`Transport` over HTTP, with one connection a call: it belongs to no event loop and has no state to lose."""

    can_stream_frames = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._errors = partial(_ERRORS.told, connection.address)
        self._headers = dict(connection.headers)
        self._is_closed = False

    async def is_ready(self, model: str, timeout_s: float) -> bool:
        """Return whether the server and this model are ready."""
        async with self._connect(timeout_s) as client:
            is_server_ready = await client.is_server_ready(headers=dict(self._headers))
            return bool(is_server_ready and await client.is_model_ready(model, headers=dict(self._headers)))

    async def model_config(self, model: str, timeout_s: float) -> dict[str, Any]:
        """Return the model's configuration as the server has loaded it."""
        async with self._connect(timeout_s) as client:
            config: dict[str, Any] = await client.get_model_config(model, headers=dict(self._headers))
            return config

    async def models(self, timeout_s: float) -> list[str]:
        """Return the names of the models that the server has ready, sorted."""
        async with self._connect(timeout_s) as client:
            return ready_models(await client.get_model_repository_index(headers=dict(self._headers)))

    async def infer(
        self,
        model: str,
        inputs: list[InputTensor],
        outputs: list[str],
        timeout_s: float,
        regions: Mapping[str, Region],
    ) -> Arrays:
        """Send one request and wait; only its time limit, nothing else, ends it on the server too."""
        async with self._connect(timeout_s) as client:
            result = await client.infer(
                model,
                to_infer_inputs(InferInput, inputs),
                outputs=to_requested_outputs(InferRequestedOutput, outputs, regions),
                timeout=int(timeout_s * 1e6),  # microseconds
                headers=dict(self._headers),
            )
            return read_outputs(result, outputs, regions)

    async def stream(
        self, model: str, inputs: list[InputTensor], outputs: list[str], timeout_s: float
    ) -> AsyncGenerator[Arrays, None]:
        """Post one request and yield each event's outputs; leaving the generator closes the connection."""
        self._check_open()
        limits = aiohttp.ClientTimeout(total=timeout_s)
        connector = aiohttp.TCPConnector(ssl=self._ssl(), force_close=True)
        url = f"http{'s' if self._connection.address.is_tls else ''}://{self._connection.address.netloc}"
        with self._errors(timeout_s):
            async with (
                aiohttp.ClientSession(connector=connector, timeout=limits) as session,
                session.post(
                    url + stream_path(model), data=stream_body(inputs), headers=stream_headers(self._headers)
                ) as response,
            ):
                if response.content_type != "text/event-stream":
                    raise refusal(response.status, await response.read())
                async for line in _lines(response.content):
                    if arrays := read_line(line, response.status):
                        yield arrays

    async def register(self, region: Region) -> None:
        """Tell the server of a region of shared memory."""
        async with self._connect(REGION_TIMEOUT_S) as client:
            await client.register_system_shared_memory(
                region.name, region.key, region.byte_size, headers=dict(self._headers)
            )

    async def unregister(self, region: Region) -> None:
        """Make the server forget it; refused while a request uses it."""
        async with self._connect(REGION_TIMEOUT_S) as client:
            await client.unregister_system_shared_memory(region.name, headers=dict(self._headers))

    async def sleep(self, seconds: float) -> None:
        """Wait, and let other tasks run."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Refuse further calls; those in flight end by themselves."""
        self._is_closed = True

    @asynccontextmanager
    async def _connect(self, timeout_s: float) -> AsyncIterator[InferenceServerClient]:
        """Lend a client for one call and turn whatever goes wrong into an error of ours."""
        self._check_open()
        address = self._connection.address
        with self._errors(timeout_s):
            async with InferenceServerClient(
                address.netloc, conn_timeout=timeout_s, ssl=address.is_tls, ssl_context=self._ssl()
            ) as client:
                yield client

    def _ssl(self) -> Any:
        """Return aiohttp's `ssl` argument."""
        return (self._connection.tls or Tls()).ssl_context() if self._connection.address.is_tls else True

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosedError("the client has been closed; make a new one")


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield lines of any length; aiohttp's own reader of lines refuses long ones."""
    kept = bytearray()
    async for chunk in content.iter_any():
        kept += chunk
        if b"\n" not in chunk:
            continue
        *lines, rest = bytes(kept).split(b"\n")
        kept = bytearray(rest)
        for line in lines:
            yield line
    if kept:
        yield bytes(kept)
