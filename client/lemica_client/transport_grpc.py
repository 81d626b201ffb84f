"""gRPC: a request that is given up here (time limit, Ctrl-C, `close`) is cancelled on the server as well."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import grpc
from tritonclient.grpc import (
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
    InferResult,
)
from tritonclient.utils import InferenceServerException

from lemica_client.connection import Connection
from lemica_client.errors import ClientClosedError, RequestTimeoutError
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

Response = tuple[InferResult | None, InferenceServerException | None]


class GrpcTransport:
    """`Transport` over one gRPC channel, and one more for each stream; thread-safe, as channels are."""

    can_stream_frames = True

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._headers = dict(connection.headers)
        self._lock = threading.Lock()
        self._opened: InferenceServerClient | None = None
        self._streams: set[InferenceServerClient] = set()
        self._is_closed = False

    async def is_ready(self, model: str, timeout_s: float) -> bool:
        """Return whether the server and this model are ready."""
        with self._errors():
            client = self._client()
            # Asked first, as a server that is still loading may not know the model yet.
            is_server_ready = client.is_server_ready(headers=self._headers, client_timeout=timeout_s)
            return bool(
                is_server_ready and client.is_model_ready(model, headers=self._headers, client_timeout=timeout_s)
            )

    async def model_config(self, model: str, timeout_s: float) -> dict[str, Any]:
        """Return the model's configuration as the server has loaded it."""
        with self._errors():
            answer = self._client().get_model_config(
                model, headers=self._headers, as_json=True, client_timeout=timeout_s
            )
        config: dict[str, Any] = answer["config"]
        return config

    async def models(self, timeout_s: float) -> list[str]:
        """Return the names of the models that the server has ready, sorted."""
        with self._errors():
            index = self._client().get_model_repository_index(
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
        """Send one request and wait; whatever interrupts the wait cancels the request on the server.

        Notes
        -----
        The time limit travels with the call, so the server learns of it even if this process dies.
        """
        answer: Future[InferResult] = Future()
        with self._errors():
            call = self._client().async_infer(
                model,
                to_infer_inputs(InferInput, inputs),
                lambda result, error: answer.set_exception(error) if error else answer.set_result(result),
                outputs=to_requested_outputs(InferRequestedOutput, outputs, regions),
                client_timeout=timeout_s,
                headers=self._headers,
            )
            try:
                result = answer.result()
            except InferenceServerException:
                raise
            except BaseException:  # Ctrl-C: nobody waits for the video any more, so the server need not make it
                call.cancel()
                raise
        return read_outputs(result, outputs, regions)

    async def stream(
        self, model: str, inputs: list[InputTensor], outputs: list[str], timeout_s: float
    ) -> AsyncGenerator[Arrays, None]:
        """Send one request and yield each response's outputs; leaving the generator cancels on the server."""
        responses: queue.SimpleQueue[Response] = queue.SimpleQueue()
        with self._errors(), self._stream_client() as client:
            client.start_stream(
                lambda result, error: responses.put((result, error)),
                stream_timeout=timeout_s,
                headers={**self._headers, **STREAM_HEADERS},
            )
            tensors = to_infer_inputs(InferInput, inputs)
            wanted = to_requested_outputs(InferRequestedOutput, outputs, {})
            client.async_stream_infer(model, tensors, outputs=wanted)
            give_up_at_s = time.monotonic() + timeout_s + 1  # gRPC's own limit comes first
            while True:
                yield read_response(self._next(responses, give_up_at_s), outputs)

    async def register(self, region: Region) -> None:
        """Tell the server of a region of shared memory."""
        with self._errors():
            self._client().register_system_shared_memory(
                region.name, region.key, region.byte_size, headers=self._headers, client_timeout=REGION_TIMEOUT_S
            )

    async def unregister(self, region: Region) -> None:
        """Make the server forget it; refused while a request uses it."""
        with self._errors():
            self._client().unregister_system_shared_memory(
                region.name, headers=self._headers, client_timeout=REGION_TIMEOUT_S
            )

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    async def close(self) -> None:
        """Close the channels; requests in flight end as cancelled, here and on the server."""
        with self._lock:
            self._is_closed = True
            client, self._opened = self._opened, None
            streams = list(self._streams)
        for stream in streams:
            stream.stop_stream(cancel_requests=True)
        if client is not None:
            client.close()

    def _client(self) -> InferenceServerClient:
        """Return the client, made at the first call: `Tls.is_insecure` asks the server then."""
        with self._lock:
            if self._is_closed:
                raise ClientClosedError("the client has been closed; make a new one")
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> InferenceServerClient:
        return InferenceServerClient(self._connection.address.netloc, **channel_settings(self._connection))

    @contextmanager
    def _stream_client(self) -> Iterator[InferenceServerClient]:
        """Lend a client for one stream: tritonclient's can have but one at a time."""
        self._client()  # refuses where closed
        client = self._open()
        with self._lock:
            self._streams.add(client)
        try:
            yield client
        finally:
            with self._lock:
                self._streams.discard(client)
            client.stop_stream(cancel_requests=True)
            client.close()

    def _next(self, responses: queue.SimpleQueue[Response], give_up_at_s: float) -> InferResult:
        try:
            result, error = responses.get(timeout=max(give_up_at_s - time.monotonic(), 0.001))
        except queue.Empty:
            text = f"no answer from {self._connection.address} within timeout_s; the request was cancelled"
            raise RequestTimeoutError(text) from None
        if error is not None:
            raise error
        return result

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what tritonclient raises into errors of ours."""
        try:
            yield
        except (InferenceServerException, grpc.RpcError) as exc:
            raise to_error(exc, self._connection.address) from exc
