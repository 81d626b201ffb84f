"""The blocking client: one call, one video."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from lemica_client.connection import Tls, connection_from_environment
from lemica_client.core import Core, Event
from lemica_client.progress import Watcher
from lemica_client.requests import GenerateOptions, StreamOptions
from lemica_client.shared_memory import Mode
from lemica_client.transport import Transport, open_transport
from lemica_client.video import Video

T = TypeVar("T")


class Client:
    """A connection to a Triton server that serves a `lemica` model.

    It may be used from several threads: the server merges requests that run at the same time at every denoising
    step, so a thread for each prompt is the way to make several videos at once.

    Parameters
    ----------
    url : str
        ``grpc://host:port``, ``http://host:port``, with TLS ``grpcs://`` or ``https://``, or ``host:port`` for gRPC.
        Prefer gRPC: only there do Ctrl-C and `close` stop a request of `generate` on the server; a time limit does over
        both, and so does leaving a `stream`.
    model : str
        Name of the model on the server.
    stream_model : str, optional
        Name of its streaming model; by default ``<model>_stream``.
    timeout_s : float
        Seconds to wait for an answer, unless a call says otherwise.
    retries : int
        How often a request is sent again that the server cannot be working on: it said UNAVAILABLE, or no connection
        came about. Pauses grow and are random, and none goes beyond the time limit or deadline. 0: never.
    shared_memory : "auto", True or False
        Whether large frames come through system shared memory; "auto": where the server is on this machine's loopback
        and takes part. The first video of each size comes over the wire.
    headers : mapping, optional
        Sent along with every request, such as ``{"authorization": "Bearer TOKEN"}``.
    tls : Tls, optional
        Certificates, for ``grpcs://`` and ``https://``; by default whom the system trusts is trusted.
    transport : Transport, optional
        What carries the requests; by default what `url` asks for.

    Raises
    ------
    InvalidRequestError
        If `url` cannot be read, or another setting is out of its range. Nothing is sent before the first call.
    MissingDependencyError
        If tritonclient is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str = "latte_shapes",
        stream_model: str | None = None,
        timeout_s: float = 600.0,
        retries: int = 2,
        shared_memory: Mode = "auto",
        headers: Mapping[str, str] | None = None,
        tls: Tls | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._core = Core(
            open_transport,
            url,
            model=model,
            stream_model=stream_model,
            timeout_s=timeout_s,
            retries=retries,
            shared_memory=shared_memory,
            headers=headers,
            tls=tls,
            transport=transport,
        )
        self.url, self.model = url, model

    @classmethod
    def from_env(cls, **settings: Any) -> Self:
        """Return a client of the server that the environment names.

        ``LEMICA_URL``; ``LEMICA_HEADERS``, one ``Name: value`` a line; ``LEMICA_TLS_ROOT``, ``LEMICA_TLS_KEY``,
        ``LEMICA_TLS_CERT`` (files) and ``LEMICA_TLS_INSECURE`` (1). `settings` win over them.
        """
        url, headers, tls = connection_from_environment()
        return cls(**{"url": url, "headers": headers, "tls": tls, **settings})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; over gRPC, requests of other threads end with `RequestCancelledError`."""
        _run(self._core.close())

    def generate(self, prompt: str, *, progress: bool | Watcher = False, **options: Unpack[GenerateOptions]) -> Video:
        """Make one video and wait for it.

        Parameters
        ----------
        prompt : str
            What the video should show.
        progress : bool or callable
            True shows a bar, a widget in notebooks; a function gets every `Accepted` and `Progress`. Needs the
            streaming model, and over HTTP ``want_frames=False``; without them the video is made all the same.
        **options
            Those of `GenerateOptions`: negative_prompt, image, seed, guidance_scale, num_inference_steps, height,
            width, num_frames, budget, deadline_ms, priority, client_id, file_format, want_frames, timeout_s.

        Raises
        ------
        InvalidRequestError
            If the request can never be served as it is.
        ModelNotFoundError
            If the server has no such model.
        ServerUnavailableError
            If there is no connection, or the server cannot take the request now.
        RequestTimeoutError
            If the answer does not come within `timeout_s`.
        RequestCancelledError
            If the request was cancelled, by `close` or on the server.
        ServerError
            If the server failed.
        """
        return _run(self._core.generate(self._core.request(prompt, options), progress))

    def stream(self, prompt: str, **options: Unpack[StreamOptions]) -> Generator[Event, None, None]:
        """Make one video and tell how it goes: `Accepted`, a `Progress` for every step, then the `Video`.

        The request is sent when the first event is asked for. Leaving the iterator early (``break``, ``close()``,
        Ctrl-C) stops the work on the server.

        Parameters
        ----------
        prompt : str
            What the video should show.
        **options
            Those of `GenerateOptions`, and ``preview_every``. Over HTTP ``want_frames=False`` with a ``file_format``
            is needed.

        Raises
        ------
        LemicaClientError
            Those of `generate`; over HTTP an error of another backend is a plain `ServerError`.
        """
        return _events(self._core.stream(self._core.stream_request(prompt, options)))

    def wait_until_ready(self, timeout_s: float | None = None) -> None:
        """Wait until the server and the model are ready.

        Parameters
        ----------
        timeout_s : float, optional
            Seconds to wait at most.

        Raises
        ------
        ServerUnavailableError
            If they are not ready by then; the message says what was missing last.
        """
        _run(self._core.wait_until_ready(timeout_s))

    def models(self, timeout_s: float | None = None) -> list[str]:
        """Return the names of the models that the server has ready, sorted; other backends' as well.

        Raises the errors of `generate`.
        """
        return _run(self._core.models(timeout_s))

    def model_config(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the model's configuration as the server has loaded it: the fields of its config.pbtxt.

        Raises the errors of `generate`.
        """
        return _run(self._core.model_config(timeout_s))

    def plan(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """Return the cache plan that the model serves, or None if it has none (then only ``full`` is served).

        Raises the errors of `generate`; `ServerError` if what the server holds is not a plan.
        """
        return _run(self._core.plan(timeout_s))


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, as those over a blocking transport: no event loop is needed or disturbed."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a blocking transport has waited for an event loop")


def _events(events: AsyncGenerator[Event, None]) -> Generator[Event, None, None]:
    try:
        while True:
            try:
                event = _run(events.__anext__())
            except StopAsyncIteration:
                return
            yield event
    finally:
        _run(events.aclose())
