"""Clients that vanish in the middle of a request: the connection is reset, with no word to the server."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc

from benchmarks.load.robustness.malformed import Outcomes
from benchmarks.load.robustness.pool import for_each
from benchmarks.load.robustness.wire import (
    Target,
    grpc_exchange,
    grpc_message,
    http_request,
    json_body,
    opened_channel,
    stream_exchange,
)

_AT_ONCE = 8
_LONGEST_S = 0.6  # until the cut: some requests are not even read, some are answered
_CHUNK = 1 << 16
_VALUES: dict[str, str | int] = {"prompt": "a red circle moving right"}
_LONG = _VALUES | {"num_inference_steps": 200}  # whose end nobody waits for


class Cutter:
    """A forwarder on a port of its own, whose connections to and from the server can be reset at any time."""

    def __init__(self, url: str) -> None:
        host, _, port = url.rpartition(":")
        self._to = (host, int(port))
        self._writers: list[asyncio.StreamWriter] = []
        self.url = ""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen for one client."""
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.url = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            self.cut()
            server.close()

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._to)
        self._writers += [writer, there_writer]
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


class Vanishing:
    """Sends requests and cuts their connections after a random time.

    Parameters
    ----------
    target : Target
    seed : int
    """

    def __init__(self, target: Target, *, seed: int) -> None:
        self._target = target
        self._seed = seed
        self.outcomes = Outcomes()
        self._kinds: list[tuple[str, Callable[[random.Random], Awaitable[str]]]] = [
            ("HTTP infer", self._http),
            ("SSE", self._sse),
            ("gRPC infer", self._grpc),
            ("gRPC stream", self._grpc_stream),
        ]

    async def send(self, number: int) -> None:
        """Send one and vanish; the kinds take turns."""
        rng = random.Random(f"{self._seed} vanish {number}")  # noqa: S311 - no secret
        kind, vanish = self._kinds[number % len(self._kinds)]
        self.outcomes.add(kind, await vanish(rng))

    async def _http(self, rng: random.Random) -> str:
        request = http_request(f"/v2/models/{self._target.model}/infer", json_body([1, 1], _VALUES))
        return await self._cut_http(request if rng.random() < 0.7 else request[: rng.randrange(len(request))], rng)

    async def _sse(self, rng: random.Random) -> str:
        text = '{"prompt": "a red circle moving right", "num_inference_steps": 200}'
        return await self._cut_http(
            http_request(f"/v2/models/{self._target.stream}/generate_stream", text.encode()), rng
        )

    async def _cut_http(self, request: bytes, rng: random.Random) -> str:
        host, _, port = self._target.http_url.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        try:
            async with asyncio.timeout(rng.uniform(0, _LONGEST_S)):
                await reader.read()
        except TimeoutError:
            return "cut"
        except ConnectionError:
            return "closed"
        finally:
            writer.transport.abort()
        return "answered before"

    async def _grpc(self, rng: random.Random) -> str:
        message = grpc_message(self._target.model, [1, 1], "", _LONG)
        return await self._cut_grpc(lambda channel: grpc_exchange(channel, message, 60.0), rng)

    async def _grpc_stream(self, rng: random.Random) -> str:
        message = grpc_message(self._target.stream, [1], "", _LONG)
        return await self._cut_grpc(lambda channel: stream_exchange(channel, message, 60.0), rng)

    async def _cut_grpc(self, call: Callable[[grpc.aio.Channel], Awaitable[object]], rng: random.Random) -> str:
        cutter = Cutter(self._target.grpc_url)
        async with cutter.open(), opened_channel(cutter.url) as channel:
            task = asyncio.ensure_future(call(channel))
            done, _ = await asyncio.wait([task], timeout=rng.uniform(0, _LONGEST_S))
            cutter.cut()
            await task  # which the cut ends
        return "answered before" if done else "cut"


async def vanish(target: Target, count: int, *, seed: int = 0) -> Outcomes:
    """Send `count` requests whose clients vanish, and return how they ended for the clients."""
    clients = Vanishing(target, seed=seed)
    await for_each(count, _AT_ONCE, clients.send)
    return clients.outcomes
