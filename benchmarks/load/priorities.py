"""How long requests of random priorities wait on a counted clock, with and without a share of the time for low ones.

The mix is that of the whole requests in `benchmarks.load.robustness.random_requests`: so many in flight at any time, a
fifth of them with a priority, a fifth with a client's name. It is what a server sees whose senders get malformed
requests answered at once: a closed loop of the valid ones, which never has nothing to do.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from lemica_backend.cost_model import Work
from lemica_backend.fair_shares import FairShares
from lemica_backend.ranking import Ranking
from lemica_backend.scheduler import Room, Scheduler

clockwork = import_module("tests.engine.clockwork")
_PRIORITIES = (0, 1, 2, 3, 6, 7, -1, 4, 2**31 - 1, -(2**31), -1)  # the last one as 2**63 - 1 arrives in four bytes
_CLIENTS = ("", "a", "b", "c", "d", "e", "f", "g")
_PLANS = ("CCCCCC",) * 6 + ("CrrCrC", "CrCrCC")
_PATIENCE_S = 120.0
_TIMEOUT_S = 600.0
_LEAD_STEPS = 6
_MAX_ACTIVE = 8


class Waits(NamedTuple):
    """Seconds until requests of one kind were started; `silent` are those that were not within two minutes."""

    share: float
    kind: str
    requests: int
    median_s: float
    longest_s: float
    silent: int


def waits(share: float, *, count: int, in_flight: int, step_s: float, seed: int) -> Iterator[Waits]:
    """Yield the kinds: lower, usual and higher priority; `step_s` is what a computed step of one request takes."""
    served = _served(share, count, in_flight, step_s, random.Random(f"{seed} priorities"))  # noqa: S311 - no secret
    kinds: dict[str, list[float]] = {"lower": [], "usual": [], "higher": []}
    for request, wait_s in served:
        kinds["usual" if not request.priority else "lower" if request.priority < 0 else "higher"].append(wait_s)
    for kind, seconds in kinds.items():
        silent = sum(each > _PATIENCE_S for each in seconds)
        yield Waits(share, kind, len(seconds), float(np.median(seconds)), max(seconds), silent)


def _served(share: float, count: int, in_flight: int, step_s: float, rng: random.Random) -> Iterator[tuple[Any, float]]:
    """Yield requests with what they waited for; those that wait at the end, too, with what they did so far."""
    engine = _Counted(share, step_s)
    number = 0
    while number < count:
        while len(engine.here) < in_flight:
            engine.here.append(_drawn(number, engine.now, rng))
            number += 1
        engine.tick()
        yield from ((each, engine.waited_s(each)) for each in engine.gone())
    yield from ((each, engine.waited_s(each)) for each in engine.here)


class _Counted:
    """The engine's decisions on a counted clock, and who is there."""

    def __init__(self, share: float, step_s: float) -> None:
        self.here: list[Any] = []
        self.now = 0.0
        self._started: dict[int, float] = {}
        self._cost = clockwork.known_cost({rows: seconds * step_s for rows, seconds in clockwork.LINEAR.items()})
        self._shares = FairShares(share)
        self._scheduler = Scheduler(Ranking("srpt", 0.5, 0.1), self._cost, align_ticks=8)
        self._lead_s = _LEAD_STEPS * step_s

    def tick(self) -> None:
        """Take one step of whom the scheduler chooses."""
        stepping = self._choose()
        seconds = self._cost.tick_s(Work(clockwork.KINDS[each.steps[each.done]], clockwork.ROWS) for each in stepping)
        for each in stepping:
            self._shares.charge(each.standing(self._cost), seconds / len(stepping))
            self._started.setdefault(each.number, self.now)
            each.is_started, each.done = True, each.done + 1
        self.now += seconds

    def _choose(self) -> list[Any]:
        standings = [each.standing(self._cost) for each in self.here]
        self._shares.update(standings)
        room = Room(_MAX_ACTIVE - sum(each.is_started for each in self.here), math.inf)
        chosen = self._scheduler.choose(standings, self._shares.shares(self._lead_s), room, self.now)
        numbers = {each.number for each in chosen}
        return [each for each in self.here if each.number in numbers]

    def gone(self) -> list[Any]:
        """Return who is finished or given up, and forget them."""
        gone = [each for each in self.here if each.done == len(each.steps) or self.now > each.arrives_s + _TIMEOUT_S]
        self.here = [each for each in self.here if each not in gone]
        return gone

    def waited_s(self, request: Any) -> float:
        """Return how long a request waited for its first step, or did so far."""
        return float(self._started.get(request.number, self.now) - request.arrives_s)


def _drawn(number: int, now: float, rng: random.Random) -> Any:
    request = clockwork.Request(number, rng.choice(_PLANS), arrives_s=now, limit_s=_TIMEOUT_S)
    if rng.random() < 0.2:
        request.priority = rng.choice(_PRIORITIES)
    if rng.random() < 0.2:
        request.client = rng.choice(_CLIENTS)
    return request
