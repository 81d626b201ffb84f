"""Curves over cost, and what a rival loses at the cost of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals.rival import Rival
from benchmarks.rivals.rows import QualityRow

MEASURES = {
    "lpips": "LPIPS (lower is better)",
    "ssim": "SSIM (higher is better)",
    "psnr_db": "PSNR (higher is better)",
    "latents_l1": "Change of the final latents (lower is better)",
    "attributes_right": "What the prompt names and one sees (higher is better)",
}
UNITS = {
    "lpips": "distance",
    "ssim": "similarity",
    "psnr_db": "dB",
    "latents_l1": "mean absolute difference",
    "attributes_right": "share",
}
DEEP_PAIRS = 28  # of Latte-1
DEEP = f" ({DEEP_PAIRS} pairs)"  # the name of a curve that is counted as if there were as many
_SMALLEST = 1e-6  # of an LPIPS in a logarithm
_DRAWS = 2000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One method at all its settings, on the prompts that every one of its settings has.

    Attributes
    ----------
    method : str
    settings : tuple of str
        From the cheapest to the dearest, by mean forwards.
    forwards : ndarray of float, shape (prompts, settings)
    values : mapping of str to such an array
        By measure.
    """

    method: str
    settings: tuple[str, ...]
    forwards: Array
    values: Mapping[str, Array]

    @property
    def cost(self) -> Array:
        """Mean forwards of each setting."""
        mean: Array = self.forwards.mean(axis=0)
        return mean


@dataclass(frozen=True)
class Ratio:
    """How many times the loss of a plan a rival has at the plan's cost.

    Attributes
    ----------
    method : str
    budget : int
    ratio : float or None
        None if no setting of the rival is that dear.
    interval : tuple of float or None
        95 %, by bootstrap over prompts.
    uses_more : bool
        No setting is that cheap, so the cheapest was taken, which costs more than the plan.
    """

    method: str
    budget: int
    ratio: float | None
    interval: tuple[float, float] | None
    uses_more: bool


def curves(rows: Sequence[QualityRow], rivals: Sequence[Rival], num_steps: int) -> list[Curve]:
    """Return every method's curve; one with a gate gets a second, as if the model were as deep as Latte-1."""
    made = []
    for method in dict.fromkeys(rival.method for rival in rivals):
        mine = [rival for rival in rivals if rival.method == method]
        table = _table(rows, mine)
        if table is None:
            continue
        made.append(_curve(method, mine, table, _forwards(table)))
        if mine[0].gate:
            made.append(_curve(method + DEEP, mine, table, _deep(table, mine[0].gate, num_steps)))
    return made


_Table = list[list[QualityRow]]  # by prompt, by setting


def _table(rows: Sequence[QualityRow], mine: Sequence[Rival]) -> _Table | None:
    """Return the method's rows by prompt and setting, None if no prompt has them all."""
    by_prompt: dict[tuple[str, int], dict[str, QualityRow]] = {}
    for row in rows:
        if row.method == mine[0].method:
            by_prompt.setdefault((row.prompt, row.seed), {})[row.setting] = row
    names = [rival.setting for rival in mine]
    whole = [[found[name] for name in names] for found in by_prompt.values() if set(names) <= set(found)]
    return sorted(whole, key=lambda line: line[0].seed) or None  # all methods in one order: bootstraps are paired


def _curve(method: str, mine: Sequence[Rival], table: _Table, forwards: Array) -> Curve:
    order = np.argsort(forwards.mean(axis=0), kind="stable")
    values = {
        name: np.array([[_number(getattr(row, name)) for row in line] for line in table])[:, order] for name in MEASURES
    }
    return Curve(method, tuple(mine[at].setting for at in order), forwards[:, order], values)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _forwards(table: _Table) -> Array:
    return np.array([[row.forwards for row in line] for line in table])


def _deep(table: _Table, gate: float, num_steps: int) -> Array:
    """Count the gate as one pair of 28: with few pairs, looking alone costs a rival more than it would there."""
    computed = (_forwards(table) - num_steps * gate) / (1 - gate)
    deep: Array = computed + (num_steps - computed) / DEEP_PAIRS
    return deep


def ratios(base: Curve, rivals: Iterable[Curve], budgets: Sequence[int]) -> Iterator[Ratio]:
    """Yield each rival's LPIPS over that of `base` at equal forwards."""
    line = _Line.of(base, base.cost)
    for rival in rivals:
        for budget in budgets:
            yield _ratio(rival.method, budget, float(budget), (line, _Line.of(rival, rival.cost)))


def ratios_at_equal_time(
    base: Curve, rivals: Iterable[Curve], budgets: Sequence[int], times: Mapping[tuple[str, str], float]
) -> Iterator[Ratio]:
    """Yield the same at equal wall clock; `times` are medians by method and setting, over that of the full run."""
    base_times = _times_of(base, times)
    for rival in rivals:
        rival_times = _times_of(rival, times)
        if base_times is None or rival_times is None:
            continue
        lines = (_Line.of(base, base_times), _Line.of(rival, rival_times))
        for budget in budgets:
            yield _ratio(rival.method, budget, float(np.interp(budget, base.cost, base_times)), lines)


def _times_of(curve: Curve, times: Mapping[tuple[str, str], float]) -> Array | None:
    found = [times.get((curve.method, setting)) for setting in curve.settings]
    return np.array([value for value in found if value is not None]) if None not in found else None


class _Line(NamedTuple):
    """LPIPS of a method, shape (prompts, settings), over some cost, ascending."""

    cost: Array
    lpips: Array

    @classmethod
    def of(cls, curve: Curve, cost: Array) -> _Line:
        order = np.argsort(cost, kind="stable")
        return cls(cost[order], curve.values["lpips"][:, order])

    def at(self, wanted: float, prompts: NDArray[np.intp]) -> float:
        """Return the mean at this cost: straight lines in the logarithm; the ends stand for what is beyond."""
        means = np.maximum(self.lpips[prompts].mean(axis=0), _SMALLEST)
        return float(np.exp(np.interp(wanted, self.cost, np.log(means))))


def _ratio(method: str, budget: int, wanted: float, lines: tuple[_Line, _Line]) -> Ratio:
    base, rival = lines
    prompts = len(base.lpips)
    if wanted > rival.cost[-1] or len(rival.lpips) != prompts:
        return Ratio(method, budget, None, None, False)
    draws = np.random.default_rng(0).integers(0, prompts, (_DRAWS, prompts))
    spread = [rival.at(wanted, draw) / base.at(wanted, draw) for draw in draws]
    low, high = np.quantile(spread, (0.025, 0.975))
    ratio = rival.at(wanted, np.arange(prompts)) / base.at(wanted, np.arange(prompts))
    return Ratio(method, budget, ratio, (float(low), float(high)), bool(wanted < rival.cost[0] - 1e-6))


def at_most(base: Curve, forwards: float, measure: str = "lpips") -> float:
    """Return the mean of `base` at its dearest setting that takes at most that many forwards, or at its cheapest."""
    within = base.cost <= forwards + 1e-6
    at = int(np.flatnonzero(within)[-1]) if within.any() else 0
    return float(base.values[measure][:, at].mean())
