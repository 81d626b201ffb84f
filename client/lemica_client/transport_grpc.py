"""gRPC: a request that is given up here (time limit, Ctrl-C, `close`) is cancelled on the server as well."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from numpy.typing import NDArray
from tritonclient.grpc import (
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
    InferResult,
)
from tritonclient.utils import InferenceServerException

from lemica_client.errors import (
    ClientClosedError,
    LemicaClientError,
    RequestTimeoutError,
    error_from_status,
)
from lemica_client.protocol import InputTensor
from lemica_client.transport import read_outputs, to_infer_inputs

# Given a list, tritonclient sets no options of its own, so its message limits are repeated here. The reconnect limits
# are ours: by default gRPC waits up to two minutes between attempts, long after a booting server became ready.
_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class GrpcTransport:
    """`Transport` over one gRPC channel; thread-safe, as the channel is."""

    def __init__(self, netloc: str) -> None:
        self._netloc = netloc
        self._client = InferenceServerClient(netloc, channel_args=_CHANNEL_OPTIONS)
        self._is_closed = False

    def is_ready(self, model: str, timeout_s: float) -> bool:
        """Return whether the server and this model are ready."""
        self._check_open()
        try:
            # Asked first, as a server that is still loading may not know the model yet.
            is_server_ready = self._client.is_server_ready(client_timeout=timeout_s)
            return bool(is_server_ready and self._client.is_model_ready(model, client_timeout=timeout_s))
        except InferenceServerException as exc:
            raise self._error(exc) from exc

    def model_config(self, model: str, timeout_s: float) -> dict[str, Any]:
        """Return the model's configuration as the server has loaded it."""
        self._check_open()
        try:
            answer = self._client.get_model_config(model, as_json=True, client_timeout=timeout_s)
        except InferenceServerException as exc:
            raise self._error(exc) from exc
        config: dict[str, Any] = answer["config"]
        return config

    def infer(
        self, model: str, inputs: list[InputTensor], outputs: list[str], timeout_s: float
    ) -> dict[str, NDArray[Any]]:
        """Send one request and wait; whatever interrupts the wait cancels the request on the server.

        Notes
        -----
        The time limit travels with the call, so the server learns of it even if this process dies.
        """
        self._check_open()
        answer: Future[InferResult] = Future()
        call = self._client.async_infer(
            model,
            to_infer_inputs(InferInput, inputs),
            lambda result, error: answer.set_exception(error) if error else answer.set_result(result),
            outputs=[InferRequestedOutput(name) for name in outputs],
            client_timeout=timeout_s,
        )
        try:
            result = answer.result()
        except InferenceServerException as exc:
            raise self._error(exc) from exc
        except BaseException:  # Ctrl-C: nobody waits for the video any more, so the server need not make it
            call.cancel()
            raise
        return read_outputs(result, outputs)

    def close(self) -> None:
        """Close the channel; requests in flight end as cancelled, here and on the server."""
        self._is_closed = True
        self._client.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosedError("the client has been closed; make a new one")

    def _error(self, exc: InferenceServerException) -> LemicaClientError:
        error = error_from_status(exc.status(), exc.message() or str(exc))
        if isinstance(error, RequestTimeoutError):
            text = f"no answer from grpc://{self._netloc} within timeout_s; the request was cancelled"
            return RequestTimeoutError(text, status=error.status)
        return error
