"""Random and broken requests over every way into the server: each has to be answered, whatever it is."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc

from benchmarks.load.robustness.pool import for_each
from benchmarks.load.robustness.random_requests import broken, generate_request, grpc_request, json_request
from benchmarks.load.robustness.wire import (
    CLOSED,
    SILENT,
    StreamEnd,
    Target,
    grpc_exchange,
    http_exchange,
    http_request,
    opened_channel,
    stream_exchange,
)

_AT_ONCE = 8
_HTTP_S = 2.0  # for broken HTTP heads only, which may rightly wait for bytes that never come


@dataclass
class Outcomes:
    """How requests ended, counted by kind and outcome."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, kind: str, outcome: str) -> None:
        """Count one."""
        self.counts.setdefault(kind, Counter())[outcome] += 1

    def total(self, outcome: str, *, without: str = "") -> int:
        """Return how many ended so, leaving out one kind."""
        return sum(counter[outcome] for kind, counter in self.counts.items() if kind != without)


HEAD = "broken HTTP head"
ENDED, TWICE = "ended without an answer", "answered twice"


class Malformed:
    """Sends random requests.

    Parameters
    ----------
    target : Target
    channel : grpc.aio.Channel
    patience_s : float
        After which a request counts as not answered.
    seed : int
    """

    def __init__(self, target: Target, channel: grpc.aio.Channel, *, patience_s: float, seed: int) -> None:
        self._target = target
        self._channel = channel
        self._patience_s = patience_s
        self._seed = seed
        self.outcomes = Outcomes()
        self._kinds: dict[str, Callable[[random.Random], Awaitable[str]]] = {
            "HTTP infer": self._http_infer,
            "broken HTTP body": self._http_broken,
            HEAD: self._http_head,
            "generate": self._generate,
            "generate_stream": self._generate_stream,
            "gRPC infer": self._grpc_infer,
            "broken gRPC message": self._grpc_broken,
            "gRPC stream": self._grpc_stream,
        }

    async def send(self, number: int) -> None:
        """Send one; which and what follows from its number and the seed."""
        rng = random.Random(f"{self._seed} malformed {number}")  # noqa: S311 - no secret
        kind = rng.choice(list(self._kinds))
        self.outcomes.add(kind, await self._kinds[kind](rng))

    async def _post(self, model: str, verb: str, body: bytes) -> str:
        request = http_request(f"/v2/models/{model}/{verb}", body)
        return await http_exchange(self._target.http_url, request, self._patience_s)

    async def _http_infer(self, rng: random.Random) -> str:
        return await self._post(self._target.model, "infer", json_request(rng, [1, 1]))

    async def _http_broken(self, rng: random.Random) -> str:
        return await self._post(self._target.model, "infer", broken(json_request(rng, [1, 1]), rng))

    async def _http_head(self, rng: random.Random) -> str:
        body = json_request(rng, [1, 1])
        request = http_request(f"/v2/models/{self._target.model}/infer", body)
        return await http_exchange(self._target.http_url, broken(request[:120], rng) + request[120:], _HTTP_S)

    async def _generate(self, rng: random.Random) -> str:
        return await self._post(self._target.model, "generate", generate_request(rng))

    async def _generate_stream(self, rng: random.Random) -> str:
        return await self._post(self._target.stream, "generate_stream", generate_request(rng))

    async def _grpc_infer(self, rng: random.Random) -> str:
        message = grpc_request(self._target.model, rng, [1, 1])
        return await grpc_exchange(self._channel, message, self._patience_s)

    async def _grpc_broken(self, rng: random.Random) -> str:
        message = broken(grpc_request(self._target.model, rng, [1, 1]), rng)
        return await grpc_exchange(self._channel, message, self._patience_s)

    async def _grpc_stream(self, rng: random.Random) -> str:
        message = grpc_request(self._target.stream, rng, [1])
        return stream_word(await stream_exchange(self._channel, message, self._patience_s))


async def send_malformed(target: Target, count: int, *, patience_s: float = 120.0, seed: int = 0) -> Outcomes:
    """Send `count` random requests and return how they ended."""
    async with opened_channel(target.grpc_url) as channel:
        sender = Malformed(target, channel, patience_s=patience_s, seed=seed)
        await for_each(count, _AT_ONCE, sender.send)
    return sender.outcomes


def stream_word(end: StreamEnd) -> str:
    """Return how a stream of one request ended, which is wrong without a last response and with two."""
    if end.finals > 1:
        return TWICE
    return ENDED if end.outcome == "grpc OK" and not end.finals else end.outcome


def unanswered(outcomes: Outcomes) -> int:
    """Return how many requests got no answer, or two, of those that were whole."""
    return sum(outcomes.total(wrong, without=HEAD) for wrong in (SILENT, CLOSED, ENDED, TWICE))
