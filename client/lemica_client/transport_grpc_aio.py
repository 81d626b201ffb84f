"""gRPC for asyncio: a cancelled task cancels its request on the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from tritonclient.grpc.aio import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from lemica_client.connection import Connection
from lemica_client.errors import ClientClosedError, RequestCancelledError
from lemica_client.grpc_channel import STREAM_HEADERS, channel_settings, to_error
from lemica_client.protocol import InputTensor
from lemica_client.shared_memory import Region
from lemica_client.transport import (
    REGION_TIMEOUT_S,
    Arrays,
    read_outputs,
    read_response,
    ready_models,
    to_infer_inputs,
    to_requested_outputs,
)


class AsyncGrpcTransport:
    """`Transport` over one gRPC channel, of the event loop that makes the first call."""

    can_stream_frames = True

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._headers = dict(connection.headers)
        self._opening = asyncio.Lock()
        self._opened: InferenceServerClient | None = None
        self._is_closed = False

    async def is_ready(self, model: str, timeout_s: float) -> bool:
        """Return whether the server and this model are ready."""
        with self._errors():
            client = await self._client()
            is_server_ready = await client.is_server_ready(headers=self._headers, client_timeout=timeout_s)
            return bool(
                is_server_ready and await client.is_model_ready(model, headers=self._headers, client_timeout=timeout_s)
            )

    async def model_config(self, model: str, timeout_s: float) -> dict[str, Any]:
        """Return the model's configuration as the server has loaded it."""
        with self._errors():
            client = await self._client()
            answer = await client.get_model_config(model, headers=self._headers, as_json=True, client_timeout=timeout_s)
        config: dict[str, Any] = answer["config"]
        return config

    async def models(self, timeout_s: float) -> list[str]:
        """Return the names of the models that the server has ready, sorted."""
        with self._errors():
            client = await self._client()
            index = await client.get_model_repository_index(
                headers=self._headers, as_json=True, client_timeout=timeout_s
            )
        return ready_models(index.get("models", []))

    async def infer(
        self,
        model: str,
        inputs: list[InputTensor],
        outputs: list[str],
        timeout_s: float,
        regions: Mapping[str, Region],
    ) -> Arrays:
        """Send one request and wait; cancelling the task cancels the request on the server."""
        with self._errors():
            client = await self._client()
            result = await client.infer(
                model,
                to_infer_inputs(InferInput, inputs),
                outputs=to_requested_outputs(InferRequestedOutput, outputs, regions),
                client_timeout=timeout_s,
                headers=self._headers,
            )
        return read_outputs(result, outputs, regions)

    async def stream(
        self, model: str, inputs: list[InputTensor], outputs: list[str], timeout_s: float
    ) -> AsyncGenerator[Arrays, None]:
        """Send one request and yield each response's outputs; leaving the generator cancels on the server."""
        tensors = to_infer_inputs(InferInput, inputs)
        wanted = to_requested_outputs(InferRequestedOutput, outputs, {})
        with self._errors():
            client = await self._client()
            responses = client.stream_infer(
                _once({"model_name": model, "inputs": tensors, "outputs": wanted}),
                stream_timeout=timeout_s,
                headers={**self._headers, **STREAM_HEADERS},
            )
            try:
                async for result, error in responses:
                    if error is not None:
                        raise error
                    yield read_response(result, outputs)
            finally:
                responses.cancel()

    async def register(self, region: Region) -> None:
        """Tell the server of a region of shared memory."""
        with self._errors():
            client = await self._client()
            await client.register_system_shared_memory(
                region.name, region.key, region.byte_size, headers=self._headers, client_timeout=REGION_TIMEOUT_S
            )

    async def unregister(self, region: Region) -> None:
        """Make the server forget it; refused while a request uses it."""
        with self._errors():
            client = await self._client()
            await client.unregister_system_shared_memory(
                region.name, headers=self._headers, client_timeout=REGION_TIMEOUT_S
            )

    async def sleep(self, seconds: float) -> None:
        """Wait, and let other tasks run."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Close the channel; requests in flight end as cancelled, here and on the server."""
        self._is_closed = True
        client, self._opened = self._opened, None
        if client is not None:
            await client.close()

    async def _client(self) -> InferenceServerClient:
        """Return the client, made at the first call, as a channel belongs to the loop that runs then."""
        async with self._opening:
            if self._is_closed:
                raise ClientClosedError("the client has been closed; make a new one")
            if self._opened is None:
                settings = await asyncio.to_thread(channel_settings, self._connection)
                self._opened = InferenceServerClient(self._connection.address.netloc, **settings)
            return self._opened

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what tritonclient raises into errors of ours."""
        try:
            yield
        except (InferenceServerException, grpc.RpcError) as exc:
            raise to_error(exc, self._connection.address) from exc
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if self._is_closed and not (task and task.cancelling()):  # gRPC's word for a call that `close` ended
                raise RequestCancelledError("the request was cancelled: the client was closed") from exc
            raise


async def _once(request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield request
