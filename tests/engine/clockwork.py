"""The engine's loop without model, threads and clock: requests are strings of steps, and time is counted."""

from __future__ import annotations

from dataclasses import dataclass, field

from lemica_backend.cost_model import CostModel, Work
from lemica_backend.fair_shares import FairShares
from lemica_backend.ranking import Ranking
from lemica_backend.scheduler import Room, Scheduler
from lemica_backend.standing import Standing

KINDS = {"C": "compute", "r": "residual"}
ROWS = 2
LINEAR = {2: 1.0, 4: 2.0, 8: 4.0, 16: 8.0}  # seconds of computed rows: sharing saves nothing
FLAT = {2: 1.0, 4: 1.1, 8: 1.3, 16: 1.7}  # sharing is nearly free
SKIPPED_S = 0.0625


def known_cost(compute=LINEAR, *, margin=0.1):
    """Return a cost model that has seen everything often; skipped steps are like computed ones, but short."""
    cost = CostModel(margin)
    for _ in range(3):
        for rows, seconds in compute.items():
            cost.observe([Work("compute", rows)], seconds)
            cost.observe([Work("residual", rows)], seconds * SKIPPED_S)
    return cost


@dataclass
class Request:
    """``steps`` such as ``CrrC``: computed, skipped, skipped, computed."""

    number: int
    steps: str
    arrives_s: float = 0.0
    priority: int = 0
    client: str = ""
    deadline_s: float | None = None
    limit_s: float = 1e6
    cache_bytes: int = 0
    done: int = 0
    is_started: bool = False
    finished_s: float | None = None

    def standing(self, cost):
        left = self.steps[self.done :]
        counts = {kind: left.count(letter) for letter, kind in KINDS.items()}
        return Standing(
            number=self.number,
            priority=self.priority,
            client=self.client,
            arrived_s=self.arrives_s,
            limit_s=self.arrives_s + self.limit_s,
            deadline_s=self.deadline_s,
            left_s=cost.left_s(counts, ROWS),
            work=Work(KINDS[left[0]], ROWS),
            ticks_to_compute=left.index("C") if "C" in left else len(left),
            is_started=self.is_started,
            cache_bytes=self.cache_bytes,
        )


@dataclass
class Clockwork:
    """Runs requests to their end; ``ticks`` are the numbers that stepped, ``started_bytes`` what was held then."""

    policy: str = "srpt"
    cost: CostModel = field(default_factory=known_cost)
    ageing: float = 0.2
    align_ticks: int = 0
    lead_s: float = 0.0
    low_priority_share: float = 0.0
    max_active: int = 8
    cache_bytes: float = float("inf")
    now: float = 0.0
    ticks: list = field(default_factory=list)
    started_bytes: list = field(default_factory=list)

    def run(self, requests):
        ranking = Ranking(self.policy, self.ageing, 0.1)
        scheduler = Scheduler(ranking, self.cost, align_ticks=self.align_ticks)
        shares = FairShares(self.low_priority_share)
        while unfinished := [each for each in requests if each.finished_s is None]:
            here = [each for each in unfinished if each.arrives_s <= self.now]
            if not here:
                self.now = min(each.arrives_s for each in unfinished)
                continue
            standings = [each.standing(self.cost) for each in here]
            shares.update(standings)
            chosen = scheduler.choose(standings, shares.shares(self.lead_s), self._room(here), self.now)
            assert chosen
            self._tick([each for each in here if each.number in {one.number for one in chosen}], requests, shares)
        return {each.number: each.finished_s for each in requests}

    def _room(self, here):
        started = [each for each in here if each.is_started]
        return Room(self.max_active - len(started), self.cache_bytes - sum(each.cache_bytes for each in started))

    def _tick(self, stepping, requests, shares):
        seconds = self.cost.tick_s(Work(KINDS[each.steps[each.done]], ROWS) for each in stepping)
        for each in stepping:
            shares.charge(each.standing(self.cost), seconds / len(stepping))
        self.now += seconds
        self.ticks.append(tuple(each.number for each in stepping))
        for each in stepping:
            each.is_started = True
            each.done += 1
        self.started_bytes.append(sum(e.cache_bytes for e in requests if e.is_started and e.finished_s is None))
        for each in stepping:
            if each.done == len(each.steps):
                each.finished_s = self.now
