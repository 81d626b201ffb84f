"""How many steps a request computes: as many as its deadline, those of others, and the load allow. Pure decisions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from lemica_backend.standing import Standing

_LEAST_CHANGE = 2  # computed steps for which a started request is planned anew, unless a promise is in danger
_HALVINGS = 12  # of the time in which the earliest deadline is sought

Foresee = Callable[[Sequence[Standing]], Mapping[int, float]]


class Option(NamedTuple):
    """One number of computed steps that is open to a request, and how the request would stand with it."""

    total: int
    standing: Standing


class Range(NamedTuple):
    """What a request's budget allows: computed steps, and what the request takes alone with most of them."""

    floor: int
    ceiling: int
    ceiling_s: float


class Budgeting:
    """Chooses among options, which ascend and are at least one.

    Parameters
    ----------
    foresee : callable
        When each of several requests will be finished, by number; see `lemica_backend.foresight.foresee`.
    margin : float
        A deadline is kept if what is predicted to be left, and this share of it, ends before it.
    pace : float
        Seconds that a second of several requests' work takes in shared ticks, at most 1.
    now : float
        On the engine's clock.
    """

    def __init__(self, foresee: Foresee, *, margin: float, pace: float, now: float) -> None:
        self._foresee = foresee
        self._margin = margin
        self._pace = pace
        self._now = now

    def within_deadlines(self, options: Sequence[Option], others: Sequence[Standing]) -> int | None:
        """Return the largest total with which its own deadline is kept and no other request becomes late by it.

        If a total is kept, so are the smaller ones: that is supposed, not tried. None: not even the smallest is.
        """
        return self._largest(options, others, self._margin)

    def earliest(self, smallest: Standing, others: Sequence[Standing]) -> float | None:
        """Return the earliest deadline, in seconds from now, that `within_deadlines` would have taken.

        None if it takes none, however late: the order would put the request before one whose deadline breaks by it.
        """
        late = self._late_anyway(others, self._margin)

        def is_kept(after_s: float) -> bool:
            return self._is_kept(smallest._replace(deadline_s=self._now + after_s), others, late, self._margin)

        low, high = 0.0, max(self._foresee([*others, smallest._replace(deadline_s=None)]).values()) - self._now
        high *= 1 + 2 * self._margin  # more than enough, also where rounding decides
        if not is_kept(high):
            return None
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if is_kept(middle) else (middle, high)
        return high

    def under_load(self, allowed: Range, standing: Standing, others: Sequence[Standing]) -> float:
        """Return how many steps a request without a deadline should compute: the nearer to its floor, the more wait.

        With w the time that the requests of its priority and above take, and s what it takes itself at its ceiling, it
        gets the share s / (s + w) of its range: all of it when nobody waits, half of it when w equals s.
        """
        wait_s = self._pace * math.fsum(each.left_s for each in others if each.priority >= standing.priority)
        share = allowed.ceiling_s / (allowed.ceiling_s + wait_s) if wait_s else 1.0
        return allowed.floor + share * (allowed.ceiling - allowed.floor)

    def anew(self, options: Sequence[Option], current: int, allowed: Range, others: Sequence[Standing]) -> int:
        """Return the total that a started request goes on with.

        The largest that keeps all promises, and without a deadline no more than the load allows. It grows only if twice
        the margin is left, and not by a single step, so that it does not go up and down.
        """
        kept = self._largest(options, others, self._margin) or options[0].total
        wish = kept if options[0].standing.deadline_s is not None else min(kept, self.up_to(options, allowed, others))
        if wish < current:
            return wish if kept < current or current - wish >= _LEAST_CHANGE else current
        if wish - current < _LEAST_CHANGE:
            return current
        surely = self._largest(options, others, 2 * self._margin) or current
        return max(current, min(wish, surely))

    def up_to(self, options: Sequence[Option], allowed: Range, others: Sequence[Standing]) -> int:
        """Return the largest total that is no more than `under_load` says, or the smallest there is."""
        target = self.under_load(allowed, options[0].standing, others)
        return max((option.total for option in options if option.total <= target), default=options[0].total)

    def _largest(self, options: Sequence[Option], others: Sequence[Standing], margin: float) -> int | None:
        late = self._late_anyway(others, margin)
        kept = [self._is_kept(options[at].standing, others, late, margin) for at in (-1, 0)]
        if kept[0] or not kept[1]:
            return options[-1].total if kept[0] else None
        good, bad = 0, len(options) - 1
        while bad - good > 1:
            middle = (good + bad) // 2
            is_kept = self._is_kept(options[middle].standing, others, late, margin)
            good, bad = (middle, bad) if is_kept else (good, middle)
        return options[good].total

    def _is_kept(self, mine: Standing, others: Sequence[Standing], late: frozenset[int], margin: float) -> bool:
        return self._late([*others, mine], margin) <= late

    def _late_anyway(self, others: Sequence[Standing], margin: float) -> frozenset[int]:
        return self._late(others, margin) if others else frozenset()

    def _late(self, standings: Sequence[Standing], margin: float) -> frozenset[int]:
        """Return the requests that will not keep their deadline."""
        promised = [each for each in standings if each.deadline_s is not None]
        if not promised:
            return frozenset()
        finish = self._foresee(standings)
        return frozenset(
            each.number
            for each in promised
            if self._now + (finish[each.number] - self._now) * (1 + margin) > (each.deadline_s or 0.0)
        )
