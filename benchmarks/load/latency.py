"""Rounds of loads over all ways to serve, interleaved: every round measures everything once, in an order drawn anew."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, NamedTuple

from benchmarks.load.arrivals import Ask, Mix, at_once, changed, poisson
from benchmarks.load.client import run_closed, run_open
from benchmarks.load.journal import Journal
from benchmarks.load.measures import in_turns, latencies_turns, measured
from benchmarks.load.peers.repository import ALONE, BATCHES, ENGINE, ONE_PLAN

CAPACITY, OVERLOAD = "capacity", "overload"
_PATIENCE_S = 3600.0  # after which an answer counts as missing
_TURNS = 3  # requests whose median is a turn


class Way(NamedTuple):
    """A way to serve: a model of the server, and what its requests ask for in place of their own budget.

    Attributes
    ----------
    name : str
    model : str
    budget : str or None
        None for each request's own.
    """

    name: str
    model: str
    budget: str | None = None


WAYS = (
    Way("lemica", ENGINE),
    Way("whole batches, one plan", ONE_PLAN),
    Way("whole batches", BATCHES),
    Way("whole batches, no plan", BATCHES, "full"),
    Way("one at a time", ALONE),
)


@dataclass(frozen=True)
class Plan:
    """What a run measures; equal plans have comparable rows.

    Attributes
    ----------
    model : str
        Name of the model folder.
    steps : int or None
        Denoising steps other than the model's own.
    mix : str
        Budgets of the requests with the share of each.
    count : int
        Requests of each load.
    shares : tuple of float
        Of the capacity, for Poisson arrivals.
    users : int
        In the closed loop that measures the capacity.
    overload : float
        Share of the capacity at `ceiling`; 0 for no overload.
    floor, ceiling : str
        Of the range that overloaded requests ask for.
    deadline : float
        In multiples of the mean time between answers at `ceiling`, at capacity.
    max_batch_size : int
    seed : int
    """

    model: str
    steps: int | None
    mix: str
    count: int
    shares: tuple[float, ...]
    users: int
    overload: float
    floor: str
    ceiling: str
    deadline: float
    max_batch_size: int
    seed: int

    def settings(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {**asdict(self), "shares": list(self.shares), "unit": "turns"}


class Run(NamedTuple):
    """One load on one way.

    Attributes
    ----------
    load : str
    way : Way
    rate : float or None
        Requests that arrive in a turn; None for a closed loop.
    deadline_turns : float or None
        Turns from arrival.
    """

    load: str
    way: Way
    rate: float | None = None
    deadline_turns: float | None = None


class Rounds:
    """Measures rounds on a running server.

    The unit of time is the turn: what a request at the ceiling takes, alone and one at a time, just before and after a
    load. A machine that gets slower within a round would otherwise get a load that it cannot bear.

    Parameters
    ----------
    url : str
        gRPC, host and port.
    plan : Plan
    journal : Journal
        Where rows go to, and where those of an earlier run are found.
    only : collection of str
        Names of ways; all if it is empty. The first one is always measured, as the loads follow from its capacity.
    """

    def __init__(self, url: str, plan: Plan, journal: Journal, only: Collection[str] = ()) -> None:
        self._url = url
        self._plan = plan
        self._journal = journal
        self._mix = Mix.parse(plan.mix)
        self._ways = [way for way in WAYS if _is_wanted(way, only)]
        self._overload_ways = [way for way in overload_ways(plan) if _is_wanted(way, only)] if plan.overload else []
        self._warm: set[str] = set()

    @property
    def runs_a_round(self) -> int:
        """How many runs a round has."""
        extra = 1 if self._plan.overload else 0  # the capacity at the ceiling
        return len(self._ways) * (1 + len(self._plan.shares)) + extra + len(self._overload_ways)

    def measure(self, number: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of a round, those that are known already first."""
        rng = random.Random(f"{self._plan.seed} round {number}")  # noqa: S311 - no secret
        capacity = self._capacity_runs()
        rng.shuffle(capacity)
        yield from (self._row(number, run) for run in capacity)
        loads = [*self._poisson_runs(number), *self._overload_runs(number)]
        rng.shuffle(loads)
        yield from (self._row(number, run) for run in loads)

    def _row(self, number: int, run: Run) -> dict[str, Any]:
        key = {"round": number, "load": run.load, "way": run.way.name}
        known = self._journal.find(**key)
        if known is None:
            known = {**key, **self._run(number, run)}
            self._journal.add(known)
        return known

    def _run(self, number: int, run: Run) -> dict[str, Any]:
        for model in {run.way.model, ALONE} - self._warm:
            self._warm_up(model)
        before_s = self._turn_s()
        asks, deadline_s = self._asks(number, run, before_s)
        if run.rate is None:
            answers = run_closed(self._url, run.way.model, asks, users=self._plan.users, patience_s=_PATIENCE_S)
        else:
            answers = run_open(self._url, run.way.model, asks, patience_s=_PATIENCE_S)
        turn_s = (before_s + self._turn_s()) / 2
        return {**in_turns(measured(answers, deadline_s), turn_s), "latencies_turns": latencies_turns(answers, turn_s)}

    def _warm_up(self, model: str) -> None:
        """Send as many at once as a closed loop does, twice: what the engine does not know yet, it tries."""
        asks = changed(at_once(self._mix, 2 * self._plan.users, self._plan.seed), budget=self._plan.ceiling)
        run_closed(self._url, model, asks, users=self._plan.users, patience_s=_PATIENCE_S)
        self._warm.add(model)

    def _turn_s(self) -> float:
        asks = changed(at_once(self._mix, _TURNS, self._plan.seed), budget=self._plan.ceiling)
        answers = run_closed(self._url, ALONE, asks, users=1, patience_s=_PATIENCE_S)
        return median(answer.latency_s for answer in answers)

    def _asks(self, number: int, run: Run, turn_s: float) -> tuple[list[Ask], float | None]:
        """Return the requests of a load with the deadline in seconds; those of a round differ in their times only."""
        seed = self._plan.seed + number
        if run.rate is None:
            asks = at_once(self._mix, self._plan.count, seed)
        else:
            asks = poisson(self._mix, run.rate / turn_s, self._plan.count, 1000 * seed + round(100 * run.rate))
        told: dict[str, Any] = {} if run.way.budget is None else {"budget": run.way.budget}
        if run.deadline_turns is None:
            return changed(asks, **told), None
        deadline_s = run.deadline_turns * turn_s
        is_ours = run.way.model == ENGINE  # a peer gets it as the longest time in Triton's queue
        told |= {"deadline_ms": round(1e3 * deadline_s)} if is_ours else {"queue_timeout_us": round(1e6 * deadline_s)}
        return changed(asks, **told), deadline_s

    def _capacity_runs(self) -> list[Run]:
        runs = [Run(CAPACITY, way) for way in self._ways]
        if self._plan.overload:
            runs.append(Run(f"{CAPACITY} at {self._plan.ceiling}", Way(WAYS[0].name, ENGINE, self._plan.ceiling)))
        return runs

    def _poisson_runs(self, number: int) -> Iterator[Run]:
        """Yield each share of the capacity on each way; all get the same arrivals."""
        for share in self._plan.shares:
            rate = share * self._measured(number, CAPACITY)
            yield from (Run(share_name(share), way, rate) for way in self._ways)

    def _overload_runs(self, number: int) -> Iterator[Run]:
        """Yield the overload on each way."""
        if self._plan.overload:
            capacity = self._measured(number, f"{CAPACITY} at {self._plan.ceiling}")
            deadline_turns = self._plan.deadline / capacity
            rate = self._plan.overload * capacity
            yield from (Run(OVERLOAD, way, rate, deadline_turns) for way in self._overload_ways)

    def _measured(self, number: int, load: str) -> float:
        row = self._journal.find(round=number, load=load, way=WAYS[0].name)
        assert row is not None  # measured first
        return float(row["per_turn"])


def overload_ways(plan: Plan) -> list[Way]:
    """Return the engine with a choice of budgets, and servers without one."""
    floor, ceiling = plan.floor, plan.ceiling
    fixed = list(dict.fromkeys((ceiling, floor)))
    return [
        Way(WAYS[0].name, ENGINE, f"{floor}..{ceiling}"),
        *(Way(f"lemica, always {budget}", ENGINE, budget) for budget in fixed),
        *(Way(f"whole batches, always {budget}", BATCHES, budget) for budget in fixed),
    ]


def _is_wanted(way: Way, only: Collection[str]) -> bool:
    return not only or way.name in only or way.name == WAYS[0].name


def share_name(share: float) -> str:
    """Return a share of the capacity as it is shown."""
    return f"{100 * share:g} %"
