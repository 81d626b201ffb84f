"""Axes: where a number stands in pixels, and which numbers to write beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Scale"]

_NICE = (1, 2, 5)
_MOST_LOG_TICKS = 8


@dataclass(frozen=True)
class Scale:
    """A line of numbers.

    Attributes
    ----------
    low, high : float
        The numbers at its ends, ``low < high``; above 0 on a log scale.
    start, end : float
        Where these stand, in pixels.
    is_log : bool

    Examples
    --------
    >>> Scale(1, 100, 0, 50, is_log=True)(10)
    25.0
    >>> Scale(0.9, 8, 0, 50).ticks(4)
    [2.0, 4.0, 6.0, 8.0]
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; those beyond the ends stand at the ends."""
        value = min(max(value, self.low), self.high)
        share = (
            math.log(value / self.low) / math.log(self.high / self.low)
            if self.is_log
            else (value - self.low) / (self.high - self.low)
        )
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        """Return round numbers on the scale, about `count` of them on a linear one."""
        return self._log_ticks() if self.is_log else self._linear_ticks(count)

    def _linear_ticks(self, count: int) -> list[float]:
        step = _nice((self.high - self.low) / count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{number * step:.12g}") for number in range(first, last + 1)]

    def _log_ticks(self) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        ticks = [float(f"{digit}e{decade}") for decade in decades for digit in _NICE]
        inside = [tick for tick in ticks if self.low * (1 - 1e-9) <= tick <= self.high * (1 + 1e-9)]
        return inside if len(inside) <= _MOST_LOG_TICKS else [tick for tick in inside if f"{tick:e}".startswith("1")]


def _nice(step: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, ... times a power of ten that is not below `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(digit * power for digit in (*_NICE, 10) if digit * power >= step * (1 - 1e-9))
