"""The same comparison without noise: the engine's real scheduler and its peers on a counted clock.

What a forward costs by its rows decides how far any scheduler can be ahead. So there are two devices: one on which a
forward of eight requests takes eight times that of one, as on a CPU, and one on which it takes 1.7 times that, as on a
GPU with room left. No model runs; skipped steps take a sixteenth of a computed one, and decoding takes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from benchmarks.load.measures import ratio
from lemica_backend.cost_model import CostModel, Work
from lemica_planner import uniform_steps

clockwork = import_module("tests.engine.clockwork")  # the engine's loop as its tests count it
DEVICES: dict[str, Mapping[int, float]] = {"sharing saves nothing": clockwork.LINEAR, "sharing is free": clockwork.FLAT}
BATCH = 4
_ROWS: int = clockwork.ROWS
_CAPACITY_REQUESTS = 64

Finished = Mapping[int, float]
Serve = Callable[[Sequence[Any], CostModel], Finished]


@dataclass(frozen=True)
class SimulatedLoad:
    """What a round is made of.

    Attributes
    ----------
    budgets : tuple of int
        Computed steps of the requests, each as often as the others.
    steps : int
        Of every request.
    share : float
        Of the engine's capacity on the device, with all requests there at once.
    count : int
        Requests.
    """

    budgets: tuple[int, ...]
    steps: int
    share: float
    count: int


class Simulated(NamedTuple):
    """One way on one device; ``p95_ratio`` is the engine's p95 latency over this way's, round by round."""

    device: str
    way: str
    p50: float
    p95: float
    p95_ratio: dict[str, Any]


def simulate(load: SimulatedLoad, rounds: int) -> Iterator[Simulated]:
    """Yield every way on every device under Poisson arrivals."""
    for device, compute in DEVICES.items():
        found: dict[str, list[tuple[float, float]]] = {}
        for number in range(rounds):
            for way, quantiles in _round(load, compute, number).items():
                found.setdefault(way, []).append(quantiles)
        ours_p95 = [p95 for _, p95 in found["lemica"]]
        for way, values in found.items():
            p50, p95 = np.median(values, axis=0)
            yield Simulated(device, way, float(p50), float(p95), ratio(ours_p95, [value for _, value in values]))


def engine(requests: Sequence[Any], cost: CostModel, policy: str = "srpt") -> Finished:
    """Return when each request ends under the engine's scheduler with its settings by default."""
    finished: Finished = clockwork.Clockwork(policy=policy, cost=cost, ageing=0.5, align_ticks=8).run(list(requests))
    return finished


def whole_batches(requests: Sequence[Any], cost: CostModel, *, most: int = BATCH, one_plan: bool = False) -> Finished:
    """Return when each request ends if batches run to their end; with `one_plan`, by the largest budget in them."""
    now, finished, waiting = 0.0, dict[int, float](), sorted(requests, key=lambda each: each.arrives_s)
    while waiting:
        now = max(now, waiting[0].arrives_s)
        batch = [each for each in waiting[:most] if each.arrives_s <= now]
        plans = [each.steps for each in batch]
        if one_plan:
            plans = [max(plans, key=lambda plan: plan.count("C"))] * len(batch)
        now += sum(_tick_s(letters, cost) for letters in zip(*plans, strict=True))
        finished |= dict.fromkeys((each.number for each in batch), now)
        waiting = waiting[len(batch) :]
    return finished


WAYS: dict[str, Serve] = {
    "lemica": engine,
    "lemica, fcfs": lambda requests, cost: engine(requests, cost, "fcfs"),
    "whole batches": whole_batches,
    "whole batches, one plan": lambda requests, cost: whole_batches(requests, cost, one_plan=True),
    "one at a time": lambda requests, cost: whole_batches(requests, cost, most=1),
}


def _round(load: SimulatedLoad, compute: Mapping[int, float], number: int) -> dict[str, tuple[float, float]]:
    rng = random.Random(f"{number} simulate")  # noqa: S311 - no secret
    plans = _plans(load, load.count, rng)
    mean_gap_s = _seconds_each(compute, _plans(load, _CAPACITY_REQUESTS, rng)) / load.share
    arrivals = np.cumsum([rng.expovariate(1 / mean_gap_s) for _ in plans])
    found = {}
    for name, serve in WAYS.items():
        requests = [clockwork.Request(n, plan, at) for n, (plan, at) in enumerate(zip(plans, arrivals, strict=True))]
        finished = serve(requests, clockwork.known_cost(compute))
        latencies = [finished[each.number] - each.arrives_s for each in requests]
        p50, p95 = np.quantile(latencies, (0.5, 0.95), method="inverted_cdf")
        found[name] = (float(p50), float(p95))
    return found


def _plans(load: SimulatedLoad, count: int, rng: random.Random) -> list[str]:
    """Return strings of computed (C) and skipped (r) steps."""
    budgets, steps = load.budgets, load.steps
    chosen = [budgets[number % len(budgets)] for number in range(count)]
    rng.shuffle(chosen)
    paths = {budget: set(uniform_steps(steps, budget)) if budget < steps else set(range(steps)) for budget in budgets}
    return ["".join("C" if step in paths[budget] else "r" for step in range(steps)) for budget in chosen]


def _seconds_each(compute: Mapping[int, float], plans: Sequence[str]) -> float:
    """Return the seconds of the engine for each of many requests that are there at once."""
    finished = engine([clockwork.Request(n, plan) for n, plan in enumerate(plans)], clockwork.known_cost(compute))
    return max(finished.values()) / len(plans)


def _tick_s(letters: Sequence[str], cost: CostModel) -> float:
    seconds: float = cost.tick_s(Work(clockwork.KINDS[letter], _ROWS) for letter in letters)
    return seconds
