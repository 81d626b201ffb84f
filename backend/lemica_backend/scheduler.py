"""Which of the accepted requests step in the next tick. Pure decisions: no model, no clock, no thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from lemica_backend.cost_model import COMPUTE, CostModel, Work
from lemica_backend.ranking import Ranking, Shares
from lemica_backend.standing import Standing


class Room(NamedTuple):
    """What may still be started.

    Attributes
    ----------
    places : int
        Requests.
    cache_bytes : float
        Bytes of step caches; infinite where there is no limit.
    rows : int or None
        Of one tick, for which the device's memory was not too small lately; None where it never was.
    """

    places: int
    cache_bytes: float
    rows: int | None = None


class Scheduler:
    """Chooses the requests of a tick.

    The first one in order leads. Others share its tick where that makes the mean latency smaller, by the cost model and
    by how many wait behind them. Where they could share its computed step a little later, it may wait for them.

    Parameters
    ----------
    ranking : Ranking
    cost : CostModel
    align_ticks : int
        Ticks that a request waits at most before a computed step, all its waits together until it computes.
    """

    def __init__(self, ranking: Ranking, cost: CostModel, *, align_ticks: int) -> None:
        self._ranking = ranking
        self._cost = cost
        self._align_ticks = align_ticks
        self._waited: dict[int, int] = {}

    @property
    def is_holding(self) -> bool:
        """Whether a request waits before a computed step for others, so that every tick is to be chosen."""
        return bool(self._waited)

    def choose(self, standings: Sequence[Standing], shares: Shares, room: Room, now: float) -> list[Standing]:
        """Return the requests that step now, those that have to be started for it included.

        Parameters
        ----------
        standings : sequence of Standing
            Of every accepted request that is not finished.
        shares : Shares
        room : Room
            For requests that are not started yet. The first one that does not fit is waited for: none behind it starts.
        now : float
            Seconds on the engine's clock.
        """
        ordered = self._ranking.order(standings, shares, now)
        ready = _that_fit(ordered, room)
        behind = {each.number: len(ordered) - at for at, each in enumerate(ordered)}  # itself included
        self._waited = {each.number: self._waited[each.number] for each in ready if each.number in self._waited}
        if not ready:
            return []
        chosen = self._catching_up(ready, behind, now)
        if chosen:
            self._waited[ready[0].number] = self._waited.get(ready[0].number, 0) + 1
            return _within(chosen, room.rows)
        chosen = _within(self._sharing(ready, behind, now), room.rows)
        for each in chosen:
            self._waited.pop(each.number, None)
        return chosen

    def _sharing(self, ready: Sequence[Standing], behind: Mapping[int, int], now: float) -> list[Standing]:
        """Return the leader and everyone whose step in its tick is a gain, as far as promises allow."""
        chosen = [ready[0]]
        for each in ready[1:]:
            works = [one.work for one in chosen]
            is_worth = self._cost.is_worth_sharing(works, each.work, gaining=behind[each.number])
            if is_worth:
                longer_s = self._cost.tick_s([*works, each.work]) - min(map(self._cost.seconds, works))
                if self._is_kept(chosen, longer_s, now):
                    chosen.append(each)
        return chosen

    def _is_kept(self, delayed: Sequence[Standing], delay_s: float, now: float) -> bool:
        """Whether a delay breaks no promise that could be kept without it."""
        return not any(
            one.deadline_s is not None and now + one.left_s <= one.deadline_s < now + one.left_s + delay_s
            for one in delayed
        )

    def _catching_up(self, ready: Sequence[Standing], behind: Mapping[int, int], now: float) -> list[Standing]:
        """Return who should take a skipped step while the leader waits before its computed one; empty if it goes on.

        It waits if all of them reach a computed step in the ticks that it may still wait, if what their skipped steps
        take is less than what the shared forward then saves, and if that breaks no promise of the leader or of another
        one that could compute now.
        """
        leader, limit = ready[0], self._align_ticks - self._waited.get(ready[0].number, 0)
        late = [each for each in ready[1:] if each.work.kind != COMPUTE and each.ticks_to_compute <= limit]
        if leader.work.kind != COMPUTE or not late:
            return []
        computing = [each for each in ready if each.work.kind == COMPUTE]
        aboard = [each.work for each in computing]
        worth = [
            each for each in late if self._cost.is_worth_sharing(aboard, _computed(each), gaining=behind[each.number])
        ]
        delay_s = sum(each.ticks_to_compute * self._cost.seconds(each.work) for each in worth)
        saved_s = self._cost.saved_s(aboard, [_computed(each) for each in worth])
        return worth if delay_s < saved_s and self._is_kept(computing, delay_s, now) else []


def _computed(standing: Standing) -> Work:
    return Work(COMPUTE, standing.work.rows)


def _that_fit(ordered: Sequence[Standing], room: Room) -> list[Standing]:
    """Return the requests that are started or can be, in order."""
    ready, is_full = [], False
    for each in ordered:
        if not each.is_started:
            is_full = is_full or room.places < 1 or each.cache_bytes > room.cache_bytes
            if is_full:
                continue
            room = room._replace(places=room.places - 1, cache_bytes=room.cache_bytes - each.cache_bytes)
        ready.append(each)
    return ready


def _within(chosen: Sequence[Standing], rows: int | None) -> list[Standing]:
    """Return the first ones that have so many rows together, or the first one alone."""
    if rows is None:
        return list(chosen)
    ends = list(accumulate(each.work.rows for each in chosen))
    return [each for each, end in zip(chosen, ends, strict=True) if end <= rows] or list(chosen[:1])
