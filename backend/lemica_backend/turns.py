"""Turns of requests that others pass by for their priority, so that no priority is so low that nothing comes of it."""

from __future__ import annotations

from collections.abc import Collection

from lemica_backend.standing import Standing


class Turns:
    """Gives a share of the engine's time to the oldest request that has not the highest priority. One thread uses it.

    While others are served, time is put by for it. Once that is enough for all that is left of it, its turn comes, and
    it goes on to its end: so it holds memory no longer than it must, and a short rush of higher priorities meets
    nobody. If its turn takes longer than what was put by, time is put by anew.

    Parameters
    ----------
    share : float
        Of the time, 0 for none: then a request may wait for higher priorities until its time limit.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._passed: Standing | None = None
        self._saved_s = 0.0
        self.turn: int | None = None  # the number of the request that goes first

    def update(self, standings: Collection[Standing]) -> None:
        """Take note of how all accepted requests stand."""
        top = max((each.priority for each in standings), default=0)
        passed = min((each for each in standings if each.priority < top), key=lambda each: each.number, default=None)
        self._passed = passed
        if passed is None:
            self._saved_s, self.turn = 0.0, None
        elif self.turn != passed.number or self._saved_s <= 0.0:
            self.turn = passed.number if self._saved_s > 0.0 and self._saved_s >= passed.left_s else None

    def charge(self, standing: Standing, seconds: float) -> None:
        """Take note of time that a request was served."""
        if self._passed is not None:
            is_own = standing.number == self._passed.number
            self._saved_s += (self._share - 1.0 if is_own else self._share) * seconds
