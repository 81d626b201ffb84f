"""What is measured of a method, with 95 % intervals over prompts and, where there are several, calibration draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_outcomes import bootstrap

__all__ = ["MEASURES", "Interval", "Measure", "Row", "difference", "interval", "saturation", "stacked"]

Values = NDArray[np.float64]
_DRAWS = 2000


class Measure(NamedTuple):
    """One measure of a video against the full one."""

    key: str
    title: str
    unit: str
    is_error: bool  # whether less is better


MEASURES = (
    Measure("lpips", "LPIPS", "distance", is_error=True),
    Measure("ssim", "SSIM", "similarity", is_error=False),
    Measure("psnr_db", "PSNR", "dB", is_error=False),
    Measure("latents_l1", "latents L1", "mean absolute difference", is_error=True),
)


class Interval(NamedTuple):
    """A mean and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Row:
    """A method at a budget.

    Attributes
    ----------
    group : str
        What was measured: model and setting.
    budget : int
        Computed steps.
    method : str
    values : mapping of str to ndarray, shape (draws, prompts)
        By the measure's key; one draw where the method has no calibration of its own to vary.
    steps : tuple of tuple of int
        The distinct plans behind it; empty for a difference.
    """

    group: str
    budget: int
    method: str
    values: Mapping[str, Values]
    steps: tuple[tuple[int, ...], ...] = ()

    def intervals(self) -> dict[str, Interval]:
        """Return every measure's mean and interval."""
        return {key: interval(values) for key, values in self.values.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values, intervals as [mean, low, high]."""
        known: dict[str, Any] = {"group": self.group, "budget": self.budget, "method": self.method}
        if self.steps:
            known["steps"] = [list(steps) for steps in self.steps]
        return known | {key: [_short(value) for value in each] for key, each in self.intervals().items()}


def interval(values: Values) -> Interval:
    """Return the mean of shape (draws, prompts); both are drawn again, each on its own, where there are several."""
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, *bootstrap(values[0]))
    rng = np.random.default_rng(0)
    rows, columns = (rng.integers(0, size, (_DRAWS, size)) for size in values.shape)
    means = values[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(mean, float(low), float(high))


def difference(first: Row, second: Row) -> Row:
    """Return `first` less `second`, prompt by prompt; a row of one draw stands against every draw of the other."""
    values = {key: first.values[key] - second.values[key] for key in first.values}
    return Row(first.group, first.budget, f"{first.method} - {second.method}", values)


def saturation(rows: Mapping[int, Row], measure: Measure) -> int | None:
    """Return the size from which on no size is told apart from the largest as worse; None if there is one size only.

    Parameters
    ----------
    rows : mapping of int to Row
        By number of calibration samples, at one budget.
    measure : Measure
    """
    sizes = sorted(rows)
    if len(sizes) < 2:
        return None
    settled = sizes[-1]
    for size in reversed(sizes[:-1]):
        if _is_worse(difference(rows[size], rows[sizes[-1]]).intervals()[measure.key], measure):
            break
        settled = size
    return settled


def _short(value: float) -> float:
    """Return six significant digits: more than any interval holds."""
    return float(f"{value:.6g}")


def _is_worse(found: Interval, measure: Measure) -> bool:
    return found.low > 0 if measure.is_error else found.high < 0


def stacked(scores: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, Values]:
    """Return every measure as an array of shape (draws, prompts)."""
    return {
        measure.key: np.array([[prompt[measure.key] for prompt in draw] for draw in scores], np.float64)
        for measure in MEASURES
    }
