"""The client for asyncio: the methods and options of `Client`, awaited."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

from lemica_client.connection import Tls, connection_from_environment
from lemica_client.core import Core, Event
from lemica_client.progress import Watcher
from lemica_client.requests import GenerateOptions, StreamOptions
from lemica_client.shared_memory import Mode
from lemica_client.transport import Transport, open_transport
from lemica_client.video import Video


class AsyncClient:
    """`Client` for asyncio: same settings, options, errors and retries; ``async with``, ``await`` and ``async for``.

    It belongs to the event loop of its first call. A cancelled task cancels its request on the server: at once over
    gRPC and in streams; over plain HTTP only the time limit ends it there.

    Examples
    --------
    >>> async def make(prompts):
    ...     async with AsyncClient("grpc://127.0.0.1:8001") as client:
    ...         return await asyncio.gather(*(client.generate(prompt) for prompt in prompts))
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
            partial(open_transport, is_async=True),
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
        """Return a client of the server that the environment names, as `Client.from_env` does."""
        url, headers, tls = connection_from_environment()
        return cls(**{"url": url, "headers": headers, "tls": tls, **settings})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; over gRPC, requests of other tasks end with `RequestCancelledError`."""
        await self._core.close()

    async def generate(
        self, prompt: str, *, progress: bool | Watcher = False, **options: Unpack[GenerateOptions]
    ) -> Video:
        """Make one video and wait for it: see `Client.generate`."""
        return await self._core.generate(self._core.request(prompt, options), progress)

    def stream(self, prompt: str, **options: Unpack[StreamOptions]) -> AsyncGenerator[Event, None]:
        """Make one video and tell how it goes, for ``async for``: see `Client.stream`.

        After ``break``, the work on the server stops as soon as the iterator is collected; ``contextlib.aclosing`` or
        ``await events.aclose()`` make that a moment of your choice.
        """
        return self._core.stream(self._core.stream_request(prompt, options))

    async def wait_until_ready(self, timeout_s: float | None = None) -> None:
        """Wait until the server and the model are ready: see `Client.wait_until_ready`."""
        await self._core.wait_until_ready(timeout_s)

    async def models(self, timeout_s: float | None = None) -> list[str]:
        """Return the names of the models that the server has ready, sorted; other backends' as well."""
        return await self._core.models(timeout_s)

    async def model_config(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the model's configuration as the server has loaded it."""
        return await self._core.model_config(timeout_s)

    async def plan(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """Return the cache plan that the model serves, or None if it has none."""
        return await self._core.plan(timeout_s)
