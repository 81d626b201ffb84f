"""HTTP: for networks that let nothing else through.

A Triton server does not notice that an HTTP client went away. So that it stops all the same, a request carries its time
limit as its Triton timeout, which the `lemica` backend takes as a deadline. Ctrl-C has no such way: use gRPC for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from geventhttpclient.response import HTTPParseError
from numpy.typing import NDArray
from tritonclient.http import (
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
)
from tritonclient.utils import InferenceServerException

from lemica_client.errors import (
    ClientClosedError,
    RequestTimeoutError,
    ServerUnavailableError,
    error_from_status,
)
from lemica_client.protocol import InputTensor
from lemica_client.transport import read_outputs, to_infer_inputs


class HttpTransport:
    """`Transport` over HTTP, with one connection a call.

    tritonclient's HTTP client belongs to one thread and has one time limit for its whole life; a fresh one a call
    costs a TCP handshake, nothing beside a video, and makes this class thread-safe with a limit per call.
    """

    def __init__(self, netloc: str) -> None:
        self._netloc = netloc
        self._is_closed = False
        hub = gevent.get_hub()  # would print a Ctrl-C as if it were a fault, before it reaches the caller
        hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)

    def is_ready(self, model: str, timeout_s: float) -> bool:
        """Return whether the server and this model are ready."""
        with self._connect(timeout_s) as client:
            return bool(client.is_server_ready() and client.is_model_ready(model))

    def model_config(self, model: str, timeout_s: float) -> dict[str, Any]:
        """Return the model's configuration as the server has loaded it."""
        with self._connect(timeout_s) as client:
            config: dict[str, Any] = client.get_model_config(model)
            return config

    def infer(
        self, model: str, inputs: list[InputTensor], outputs: list[str], timeout_s: float
    ) -> dict[str, NDArray[Any]]:
        """Send one request and wait; only its time limit, nothing else, ends it on the server too."""
        with self._connect(timeout_s) as client:
            result = client.infer(
                model,
                to_infer_inputs(InferInput, inputs),
                outputs=[InferRequestedOutput(name) for name in outputs],
                timeout=int(timeout_s * 1e6),  # microseconds
            )
            return read_outputs(result, outputs)

    def close(self) -> None:
        """Refuse further calls; those in flight end by themselves."""
        self._is_closed = True

    @contextmanager
    def _connect(self, timeout_s: float) -> Iterator[InferenceServerClient]:
        """Lend a client for one call and turn whatever goes wrong into an error of ours."""
        if self._is_closed:
            raise ClientClosedError("the client has been closed; make a new one")
        client = InferenceServerClient(self._netloc, connection_timeout=timeout_s, network_timeout=timeout_s)
        try:
            # The client's own limits hold for each read; this one holds for the call as a whole.
            with gevent.Timeout(timeout_s):
                yield client
        except InferenceServerException as exc:
            raise error_from_status(exc.status(), exc.message() or str(exc)) from exc
        except (gevent.Timeout, TimeoutError) as exc:
            text = f"no answer from http://{self._netloc} within timeout_s"
            raise RequestTimeoutError(text) from exc
        except (OSError, HTTPParseError) as exc:
            reason = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
            raise ServerUnavailableError(f"http://{self._netloc}: {reason}") from exc
        finally:
            client.close()
