"""How long one kind of work takes, by its rows: learned from what was measured, guessed for the worse elsewhere."""

from __future__ import annotations

from typing import NamedTuple

_RATE = 0.1  # of the exponential moving average, once there are enough measurements for it
_LIMIT = 2.0  # a measurement counts at most as this many times what was expected
_COMMON = 0.8  # of a well-known point's move, in logarithms, is taken for the machine's
_TRUST = 4  # measurements after which it is half of that
_FORGOTTEN = 2000  # measurements after which a number of rows is worth another try
_ENOUGH = 2  # measurements before a point is believed


class _Point(NamedTuple):
    seconds: float
    times: int  # it was measured
    last: int  # the number of the newest one


class CostCurve:
    """Seconds by number of rows. One thread observes, any thread reads."""

    def __init__(self) -> None:
        self._points: dict[int, _Point] = {}  # replaced as a whole, so that readers see one state
        self._clock = 0

    def seconds(self, rows: int) -> float | None:
        """Return what `rows` rows take; None if nothing was measured yet.

        Between two measured numbers it is the larger of the straight line and of what the smaller number costs a row,
        but no more than either of them takes. Beyond the largest, no row is cheaper than those before it. Below the
        smallest, it is what the smallest takes.
        """
        points = self._points
        below = max((known for known in points if known <= rows), default=None)
        above = min((known for known in points if known >= rows), default=None)
        if below is None:
            return None if above is None else points[above].seconds
        low, proportional = points[below].seconds, points[below].seconds * rows / below
        if above is None:
            return max(proportional, low + self._last_slope() * (rows - below))
        high = points[above].seconds
        line = low + (high - low) * (rows - below) / max(1, above - below)
        return min(max(low, high), max(line, proportional))

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from one measurement.

        An outlier moves a settled average by a tenth at most. What makes one number of rows slower (other processes,
        heat) makes all slower, and only what is measured would show it: two requests would seem to be cheap beside a
        single one that has become expensive. So the other points move along, the more the better the measured one was
        known before.
        """
        self._clock += 1
        expected, known = self.seconds(rows), self._points.get(rows)
        if expected is None or known is None:
            first = seconds if expected is None else min(seconds, _LIMIT * expected)
            self._points = {**self._points, rows: _Point(first, 1, self._clock)}
            return
        rate = max(_RATE, 1 / (known.times + 1))
        factor = 1 + rate * (min(seconds / known.seconds, _LIMIT) - 1)
        common = factor ** (_COMMON * known.times / (known.times + _TRUST))
        moved = {other: point._replace(seconds=point.seconds * common) for other, point in self._points.items()}
        self._points = {**moved, rows: _Point(known.seconds * factor, known.times + 1, self._clock)}

    def is_settled(self, rows: int) -> bool:
        """Whether there are enough measurements of exactly `rows` rows, and not too old ones."""
        point = self._points.get(rows)
        return point is not None and point.times >= _ENOUGH and self._clock - point.last < _FORGOTTEN

    def _last_slope(self) -> float:
        """Return seconds a row between the two largest measured numbers."""
        if len(self._points) < 2:
            return 0.0
        before, last = sorted(self._points)[-2:]
        return (self._points[last].seconds - self._points[before].seconds) / (last - before)
