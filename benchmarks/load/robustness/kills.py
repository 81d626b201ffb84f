"""Workers killed under load: every request is answered once, and a new worker takes over."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.load.robustness.steady import Ended, Steady, counts
from benchmarks.load.robustness.wire import Target
from benchmarks.load.servers import LoadServer

WORKER = "lemica_backend.worker_main"
_PATIENCE_S = 120.0
_POLL_S = 0.02


class Kill(NamedTuple):
    """One killed worker; seconds from the kill.

    Attributes
    ----------
    at_s : float
        `time.monotonic`.
    back_s : float
        Until the first request that was sent afterwards is served.
    last_failure_s : float
        Until the last of the requests in flight that failed was answered; 0 if none failed.
    """

    at_s: float
    back_s: float
    last_failure_s: float


async def kill_workers(server: LoadServer, target: Target, times: int, *, seed: int = 0) -> dict[str, object]:
    """Keep six requests in flight and kill the worker so many times; return what became of all.

    Memory is sampled before each kill.
    """
    load = Steady(target, patience_s=_PATIENCE_S, seed=seed)
    rng = random.Random(f"{seed} kills")  # noqa: S311 - no secret
    running = asyncio.create_task(load.run(unary=4, streams=2))
    killed, samples = [], []
    for _ in range(times):
        await asyncio.sleep(rng.uniform(0.5, 2.0))
        samples.append(await asyncio.to_thread(server.resident_bytes))  # of a server that is whole
        killed.append(await kill_one(server, load, running))
    load.stop()
    await running
    kills = [_kill(at_s, load.ended) for at_s in killed]
    return {
        "kills": len(kills),
        "requests": len(load.ended),
        "outcomes": counts(load.ended),
        "back_s": [round(kill.back_s, 3) for kill in kills],
        "last_failure_s": [round(kill.last_failure_s, 3) for kill in kills],
        "samples_bytes": samples,
    }


async def kill_one(server: LoadServer, load: Steady, running: asyncio.Task[None]) -> float:
    """Kill the workers and wait until requests are served again; return when it was."""
    pids = [process.pid for process in await asyncio.to_thread(server.processes, WORKER)]
    at_s = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    if not pids:
        raise RuntimeError("the server has no worker to kill: was its model loaded?")
    while not any(_is_served_after(each, at_s) for each in reversed(load.ended)):
        if running.done() or time.monotonic() > at_s + 2 * _PATIENCE_S:
            raise RuntimeError(f"nothing was served within {2 * _PATIENCE_S:g} s after a worker was killed")
        await asyncio.sleep(_POLL_S)
    return at_s


def _kill(at_s: float, ended: Sequence[Ended]) -> Kill:
    back_s = min(each.done_s for each in ended if _is_served_after(each, at_s)) - at_s
    failures_s = [
        each.done_s - at_s for each in ended if each.sent_s <= at_s <= each.done_s and each.outcome != "grpc OK"
    ]
    return Kill(at_s, back_s, max(failures_s, default=0.0))


def _is_served_after(each: Ended, at_s: float) -> bool:
    return each.outcome == "grpc OK" and each.sent_s > at_s
