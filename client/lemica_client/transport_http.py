"""HTTP: for networks that let nothing else through.

A Triton server does not notice that an HTTP client went away. So that it stops all the same, a request carries its time
limit as its Triton timeout, which the `lemica` backend takes as a limit. Ctrl-C has no such way: use gRPC, or a stream,
whose closed connection the server does notice.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import gevent
import gevent.ssl
from geventhttpclient.response import HTTPParseError
from tritonclient.http import (
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
)

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

_MAX_LINE_BYTES = 1 << 30  # a video as base64 is one line
_ERRORS = HttpErrors(
    late=(gevent.Timeout, TimeoutError),
    lost=(OSError, HTTPParseError, http.client.HTTPException),
    before=(ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError),
)


class HttpTransport:
    """`Transport` over HTTP, with one connection a call.

    tritonclient's HTTP client belongs to one thread and has one time limit for its whole life; a fresh one a call
    costs a TCP handshake, nothing beside a video, and makes this class thread-safe with a limit per call.
    """

    can_stream_frames = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._errors = partial(_ERRORS.told, connection.address)
        self._headers = dict(connection.headers)
        self._is_closed = False
        hub = gevent.get_hub()  # would print a Ctrl-C as if it were a fault, before it reaches the caller
        hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)

    async def is_ready(self, model: str, timeout_s: float) -> bool:
        """Return whether the server and this model are ready."""
        with self._connect(timeout_s) as client:
            return bool(
                client.is_server_ready(headers=self._headers) and client.is_model_ready(model, headers=self._headers)
            )

    async def model_config(self, model: str, timeout_s: float) -> dict[str, Any]:
        """Return the model's configuration as the server has loaded it."""
        with self._connect(timeout_s) as client:
            config: dict[str, Any] = client.get_model_config(model, headers=self._headers)
            return config

    async def models(self, timeout_s: float) -> list[str]:
        """Return the names of the models that the server has ready, sorted."""
        with self._connect(timeout_s) as client:
            return ready_models(client.get_model_repository_index(headers=self._headers))

    async def infer(
        self,
        model: str,
        inputs: list[InputTensor],
        outputs: list[str],
        timeout_s: float,
        regions: Mapping[str, Region],
    ) -> Arrays:
        """Send one request and wait; only its time limit, nothing else, ends it on the server too."""
        with self._connect(timeout_s) as client:
            result = client.infer(
                model,
                to_infer_inputs(InferInput, inputs),
                outputs=to_requested_outputs(InferRequestedOutput, outputs, regions),
                timeout=int(timeout_s * 1e6),  # microseconds
                headers=dict(self._headers),  # tritonclient adds its own to it
            )
            return read_outputs(result, outputs, regions)

    async def stream(
        self, model: str, inputs: list[InputTensor], outputs: list[str], timeout_s: float
    ) -> AsyncGenerator[Arrays, None]:
        """Post one request and yield each event's outputs; leaving the generator closes the connection.

        Notes
        -----
        By `http.client`, as tritonclient has no streams over HTTP.
        """
        give_up_at_s = time.monotonic() + timeout_s
        with self._errors(timeout_s), self._post(model, inputs, timeout_s) as (link, response):
            if response.getheader("Content-Type", "").split(";")[0] != "text/event-stream":
                raise refusal(response.status, response.read())
            while True:
                link.settimeout(max(give_up_at_s - time.monotonic(), 0.001))
                line = response.readline(_MAX_LINE_BYTES)
                if not line:
                    return
                if arrays := read_line(line, response.status):
                    yield arrays

    async def register(self, region: Region) -> None:
        """Tell the server of a region of shared memory."""
        with self._connect(REGION_TIMEOUT_S) as client:
            client.register_system_shared_memory(region.name, region.key, region.byte_size, headers=self._headers)

    async def unregister(self, region: Region) -> None:
        """Make the server forget it; refused while a request uses it."""
        with self._connect(REGION_TIMEOUT_S) as client:
            client.unregister_system_shared_memory(region.name, headers=self._headers)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    async def close(self) -> None:
        """Refuse further calls; those in flight end by themselves."""
        self._is_closed = True

    @contextmanager
    def _connect(self, timeout_s: float) -> Iterator[InferenceServerClient]:
        """Lend a client for one call and turn whatever goes wrong into an error of ours."""
        self._check_open()
        address = self._connection.address
        with self._errors(timeout_s):
            client = InferenceServerClient(
                address.netloc, connection_timeout=timeout_s, network_timeout=timeout_s, **self._tls_settings()
            )
            try:
                # The client's own limits hold for each read; this one holds for the call as a whole.
                with gevent.Timeout(timeout_s):
                    yield client
            finally:
                client.close()

    def _tls_settings(self) -> dict[str, Any]:
        if not self._connection.address.is_tls:
            return {}
        tls = self._connection.tls or Tls()
        context = tls.ssl_context(gevent.ssl)
        return {"ssl": True, "insecure": tls.is_insecure, "ssl_context_factory": lambda cafile: context}

    @contextmanager
    def _post(
        self, model: str, inputs: list[InputTensor], timeout_s: float
    ) -> Iterator[tuple[socket.socket, http.client.HTTPResponse]]:
        """Lend the connection and the answer of one post."""
        self._check_open()
        connection = self._http_connection(timeout_s)
        try:
            connection.connect()
            link = connection.sock  # closing it is how the server learns that nobody listens
            connection.request("POST", stream_path(model), stream_body(inputs), stream_headers(self._headers))
            yield link, connection.getresponse()
        finally:
            if connection.sock is not None:
                connection.sock.close()
            connection.close()

    def _http_connection(self, timeout_s: float) -> http.client.HTTPConnection:
        address = self._connection.address
        if not address.is_tls:
            return http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)
        context = (self._connection.tls or Tls()).ssl_context()
        return http.client.HTTPSConnection(address.host, address.port, timeout=timeout_s, context=context)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosedError("the client has been closed; make a new one")
