"""What a chart shows: values over a number of steps or forwards, one series a method, with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

__all__ = ["Chart", "Point", "Series"]

_LOG_FROM = 5.0  # a largest value of so many times the smallest is easier to read on a log scale


class Point(NamedTuple):
    """A value at a place of the horizontal axis, and the ends of its interval (both the value if it has none)."""

    at: float
    value: float
    low: float
    high: float

    @classmethod
    def sure(cls, at: float, value: float) -> Point:
        """Return a point without an interval."""
        return cls(at, value, value, value)


@dataclass(frozen=True)
class Series:
    """The points of one method, by `Point.at`; ours are drawn thick."""

    name: str
    points: tuple[Point, ...]
    is_ours: bool = False

    @property
    def has_intervals(self) -> bool:
        """Whether any point is not sure."""
        return any(point.low < point.high for point in self.points)


@dataclass(frozen=True)
class Chart:
    """Series over one axis.

    Attributes
    ----------
    title, unit : str
        What the values are.
    across : str
        Name of the horizontal axis.
    series : tuple of Series
    """

    title: str
    unit: str
    across: str
    series: tuple[Series, ...]

    @cached_property
    def is_log(self) -> bool:
        """Whether a log scale helps: nothing is negative, and the values differ by a factor of five or more."""
        values = [point.value for series in self.series for point in series.points if math.isfinite(point.value)]
        positive = [value for value in values if value > 0]
        return min(values, default=-1) >= 0 and bool(positive) and max(positive) >= _LOG_FROM * min(positive)

    def drawable(self) -> Chart:
        """Return the chart without points that have no place: infinite ones, and zeros on a log scale."""
        return replace(self, series=tuple(kept for series in self.series if (kept := self._kept(series)).points))

    def _kept(self, series: Series) -> Series:
        lowest = 0 if self.is_log else -math.inf
        return replace(series, points=tuple(point for point in series.points if lowest < point.value < math.inf))
