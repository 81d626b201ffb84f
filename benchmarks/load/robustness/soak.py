"""A long run of everything at once: valid requests, malformed ones, clients that vanish, and killed workers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from benchmarks.load.robustness.disconnects import Vanishing
from benchmarks.load.robustness.kills import kill_one
from benchmarks.load.robustness.malformed import Malformed, unanswered
from benchmarks.load.robustness.steady import Steady, counts
from benchmarks.load.robustness.wire import Target, opened_channel
from benchmarks.load.servers import LoadServer

_PATIENCE_S = 120.0


class Soak:
    """What runs side by side.

    Parameters
    ----------
    server : LoadServer
    target : Target
    seed : int
    """

    def __init__(self, server: LoadServer, target: Target, *, seed: int) -> None:
        self._server = server
        self._target = target
        self._seed = seed
        self._steady = Steady(target, patience_s=_PATIENCE_S, seed=seed, pause_s=1.0)
        self._kills = 0

    async def run(self, duration_s: float, *, kill_every_s: float) -> dict[str, object]:
        """Run for so long; return what became of everything."""
        vanishing = Vanishing(self._target, seed=self._seed)
        async with opened_channel(self._target.grpc_url) as channel:
            malformed = Malformed(self._target, channel, patience_s=_PATIENCE_S, seed=self._seed)
            running = asyncio.create_task(self._steady.run(unary=2, streams=1))
            sides = [
                asyncio.create_task(self._often(malformed.send, 0.5)),
                asyncio.create_task(self._often(vanishing.send, 2.0)),
                asyncio.create_task(self._often(lambda _: self._kill(running), kill_every_s)),
            ]
            done, _ = await asyncio.wait(sides, timeout=duration_s, return_when=asyncio.FIRST_EXCEPTION)
            await _cancelled(sides)
            self._steady.stop()
            await running
        for side in done:
            side.result()
        return {
            "requests": len(self._steady.ended),
            "outcomes": counts(self._steady.ended),
            "kills": self._kills,
            "malformed": {kind: dict(each) for kind, each in malformed.outcomes.counts.items()},
            "malformed_unanswered": unanswered(malformed.outcomes),
            "vanished": {kind: dict(each) for kind, each in vanishing.outcomes.counts.items()},
        }

    async def _often(self, work: Callable[[int], Awaitable[None]], mean_s: float) -> None:
        rng = random.Random(f"{self._seed} {mean_s}")  # noqa: S311 - no secret
        number = 0
        while True:
            await asyncio.sleep(rng.expovariate(1 / mean_s))
            await work(number)
            number += 1

    async def _kill(self, running: asyncio.Task[None]) -> None:
        await kill_one(self._server, self._steady, running)
        self._kills += 1


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
