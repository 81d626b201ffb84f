"""What the client does, for both worlds: coroutines over a `Transport`, whether it blocks or awaits.

`client.Client` drives them without an event loop, `async_client.AsyncClient` awaits them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from lemica_client.connection import Connection, Tls, parse_url
from lemica_client.errors import (
    InvalidRequestError,
    LemicaClientError,
    ModelNotFoundError,
    RequestTimeoutError,
    ServerError,
    ServerUnavailableError,
)
from lemica_client.events import Accepted, Progress, read_event, read_json_object
from lemica_client.progress import Watcher, watching
from lemica_client.protocol import InputTensor, add_batch_dimension
from lemica_client.requests import GenerateOptions, Request, StreamOptions, check_timeout, make_request
from lemica_client.retry import Retries, check_retries
from lemica_client.shared_memory import Mode, SharedFrames
from lemica_client.transport import Arrays, Transport
from lemica_client.video import Video

Event = Accepted | Progress | Video
_POLL_S = 0.2
_TOO_SMALL = "shared memory size specified with the request"  # the model now makes larger videos: Triton's words


class Core:
    """The state of one client and its coroutines. Parameters are those of `Client`."""

    def __init__(
        self,
        open_transport: Callable[[Connection], Transport],
        url: str,
        *,
        model: str,
        stream_model: str | None,
        timeout_s: float,
        retries: int,
        shared_memory: Mode,
        headers: Mapping[str, str] | None,
        tls: Tls | None,
        transport: Transport | None,
    ) -> None:
        address = parse_url(url)
        self.url, self.model = url, model
        self.stream_model = stream_model or f"{model}_stream"
        self.timeout_s = check_timeout(timeout_s)
        self.retries = check_retries(retries)
        lower = {name.lower(): value for name, value in (headers or {}).items()}  # as gRPC wants them
        connection = Connection(address, lower, tls)
        self.transport = transport or open_transport(connection)
        self._frames = SharedFrames(self.transport, shared_memory, address)
        self._takes_batches: dict[str, bool] = {}

    def request(self, prompt: str, options: Mapping[str, Any]) -> Request:
        """Check the options of `generate`."""
        return make_request(prompt, options, GenerateOptions, self.timeout_s)

    def stream_request(self, prompt: str, options: Mapping[str, Any]) -> Request:
        """Check the options of `stream`."""
        request = make_request(prompt, options, StreamOptions, self.timeout_s)
        if not self._can_stream(request):
            raise InvalidRequestError(
                "want_frames: raw frames do not stream over HTTP; ask for a file (file_format='mp4', "
                "want_frames=False), or use grpc://"
            )
        return request

    async def generate(self, request: Request, progress: bool | Watcher) -> Video:
        """Return the video of a request, with progress where it is wanted and the server can tell."""
        if progress is not False and self._can_stream(request) and await self._has_stream(request):
            with watching(progress) as watcher:
                return await self._watched(request, watcher)
        retries = self._retries(request)
        is_first = True
        while True:
            try:
                return await self._generate_once(request, is_first)
            except LemicaClientError as exc:
                await retries.pause_after(exc)
                is_first = False

    async def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Yield the events of a request; it is sent again only as long as nothing was accepted."""
        retries = self._retries(request)
        is_first, is_accepted = True, False
        while True:
            try:
                async with aclosing(self._stream_once(request, is_first)) as events:
                    async for event in events:
                        is_accepted = True
                        yield event
                return
            except LemicaClientError as exc:
                if is_accepted:
                    retries.tell_first(exc)
                    raise
                await retries.pause_after(exc)
                is_first = False

    async def wait_until_ready(self, timeout_s: float | None) -> None:
        """Wait until the server and the model are ready."""
        limit_s = self.timeout(timeout_s)
        give_up_at_s = time.monotonic() + limit_s
        missing = "it was not asked"
        while (remaining_s := give_up_at_s - time.monotonic()) > 0:
            try:
                if await self.transport.is_ready(self.model, remaining_s):
                    return
                missing = f"the server answers, but model {self.model!r} is not ready (is it the right name?)"
            except (ServerUnavailableError, RequestTimeoutError) as exc:
                missing = str(exc)
            await self.transport.sleep(min(_POLL_S, remaining_s))
        raise ServerUnavailableError(f"{self.url} was not ready within {limit_s:.3g} s: {missing}")

    async def models(self, timeout_s: float | None) -> list[str]:
        """Return the names of the models that the server has ready."""
        return await self.transport.models(self.timeout(timeout_s))

    async def model_config(self, timeout_s: float | None) -> dict[str, Any]:
        """Return the model's configuration."""
        return await self.transport.model_config(self.model, self.timeout(timeout_s))

    async def plan(self, timeout_s: float | None) -> dict[str, Any] | None:
        """Return the model's cache plan, or None."""
        parameters = (await self.model_config(timeout_s)).get("parameters", {})
        text = parameters.get("cache_plan", {}).get("string_value")
        return read_json_object(text, "the model's cache_plan") if text else None

    async def close(self) -> None:
        """Give back what the server holds for this client, and close the connection."""
        with contextlib.suppress(Exception):  # a server that is gone holds nothing
            await self._frames.close()
        await self.transport.close()

    def timeout(self, timeout_s: float | None) -> float:
        """Return the time limit of a call."""
        return self.timeout_s if timeout_s is None else check_timeout(timeout_s)

    def _retries(self, request: Request) -> Retries:
        return Retries(self.retries, request.give_up_at_s, self.transport.sleep)

    def _can_stream(self, request: Request) -> bool:
        return self.transport.can_stream_frames or "video" not in request.outputs

    async def _has_stream(self, request: Request) -> bool:
        """Return whether the server has the streaming model; a server that is away is found out by the request."""
        try:
            await self._shape(self.stream_model, [], request.remaining_s)
        except ModelNotFoundError:
            return False
        except ServerUnavailableError:
            return True
        return True

    async def _watched(self, request: Request, watcher: Watcher) -> Video:
        async with aclosing(self.stream(request)) as events:
            async for event in events:
                if isinstance(event, Video):
                    return event
                watcher(event)
        raise ServerError("the stream ended without a video")

    async def _generate_once(self, request: Request, is_first: bool) -> Video:
        tensors = await self._shape(self.model, request.tensors(is_first), request.remaining_s)
        try:
            arrays = await self._infer(request, tensors)
        except ServerError as exc:
            if _TOO_SMALL not in str(exc):
                raise
            self._frames.forget(request.frames_key)
            arrays = await self._infer(request, tensors)
        if self._takes_batches[self.model]:
            arrays = {name: array[0] for name, array in arrays.items()}
        self._frames.learn(request.frames_key, arrays.get("video"))
        return _to_video(arrays, request.file_format)

    async def _infer(self, request: Request, tensors: list[InputTensor]) -> Arrays:
        region = await self._frames.lend(request.frames_key) if "video" in request.outputs else None
        regions = {} if region is None else {"video": region}
        try:
            return await self.transport.infer(self.model, tensors, request.outputs, request.remaining_s, regions)
        finally:
            if region is not None:
                await self._frames.take_back(region)

    async def _stream_once(self, request: Request, is_first: bool) -> AsyncGenerator[Event, None]:
        model = self.stream_model
        tensors = await self._shape(model, request.tensors(is_first), request.remaining_s)
        responses = self.transport.stream(model, tensors, request.outputs, request.remaining_s)
        async with aclosing(responses):
            async for arrays in responses:
                if self._takes_batches[model]:
                    arrays = {name: array[0] for name, array in arrays.items()}  # noqa: PLW2901
                if "info" not in arrays:
                    raise ServerError("a response of the stream has no info")
                event = read_event(read_json_object(arrays["info"].item(), "info"))
                if event is None:
                    yield _to_video(_all_of(arrays, request.outputs), request.file_format)
                    return
                yield event
        raise ServerError("the stream ended without a video")

    async def _shape(self, model: str, tensors: list[InputTensor], timeout_s: float) -> list[InputTensor]:
        """Give the tensors the shape that this model wants; it is asked once."""
        if model not in self._takes_batches:
            config = await self.transport.model_config(model, timeout_s)
            self._takes_batches[model] = int(config.get("max_batch_size", 0)) > 0
        return add_batch_dimension(tensors) if self._takes_batches[model] else tensors


def _all_of(arrays: Arrays, outputs: list[str]) -> Arrays:
    if missing := [name for name in outputs if name not in arrays]:
        raise ServerError(f"the server's answer has no output {', '.join(missing)}")
    return {name: arrays[name] for name in outputs}


def _to_video(arrays: Arrays, file_format: str | None) -> Video:
    file = arrays.get("video_file")
    info = read_json_object(arrays["info"].item(), "info")
    info.pop("event", None)  # a stream's word for what a `Video` is anyway
    return Video(
        info,
        frames=arrays.get("video"),
        file_bytes=None if file is None else file.item(),
        file_format=file_format,
    )
