"""What a run found out, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.rivals import report
from benchmarks.rivals.compare import Curve, Ratio, curves, ratios, ratios_at_equal_time
from benchmarks.rivals.measure import FULL_METHOD
from benchmarks.rivals.rival import Rival
from benchmarks.rivals.rows import Store
from benchmarks.rivals.timing import loops, median_ratios
from benchmarks.rivals.unsupported import Fault


@dataclass(frozen=True)
class Run:
    """What was asked for.

    Attributes
    ----------
    rivals : list of Rival
    base : str
        The method that the others are compared with.
    prompts : list of (str, int)
        Texts and seeds.
    weights : str
        Fingerprint of the model's weights.
    num_steps : int
    """

    rivals: list[Rival]
    base: str
    prompts: list[tuple[str, int]]
    weights: str
    num_steps: int


@dataclass(frozen=True)
class Summary:
    """Curves, ratios and times of a run."""

    run: Run
    budgets: Sequence[int]
    curves: list[Curve]
    at_equal_forwards: list[Ratio]
    at_equal_time: list[Ratio]
    times: Mapping[tuple[str, str], float]
    faults: list[Fault]

    @property
    def base(self) -> Curve:
        """The curve that the others are compared with."""
        return next(curve for curve in self.curves if curve.method == self.run.base)

    def show(self) -> None:
        """Print the tables."""
        base, rivals = self.run.base, _rivals_of(self.curves, self.run.base)
        report.show_recommended(report.recommended_rows(self.base, self.curves, self.run.rivals), base)
        report.show_ratios(f"LPIPS over {base}'s at equal forwards", rivals, self.at_equal_forwards, self.budgets)
        if self.at_equal_time:
            report.show_ratios(f"LPIPS over {base}'s at equal wall clock", rivals, self.at_equal_time, self.budgets)
        report.show_faults(self.faults)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        shown = [curve for curve in self.curves if curve.method != FULL_METHOD]
        return {
            "heading": "Caches of others, and fewer steps, on the same model",
            "about": f"{len(self.run.prompts)} held-out prompts; the intervals are over them. A forward is the work "
            "of the blocks in a computed step, as it was counted; docs/rivals.md says who the rivals are.",
            "base": self.run.base,
            "prompts": len(self.run.prompts),
            "first_seed": self.run.prompts[0][1],
            "weights": self.run.weights,
            "recommended": report.recommended_rows(self.base, self.curves, self.run.rivals),
            "ratio_at_equal_forwards": report.as_json(self.at_equal_forwards),
            "ratio_at_equal_time": report.as_json(self.at_equal_time),
            "times": [{"method": key[0], "setting": key[1], "ratio": value} for key, value in self.times.items()],
            "curves": report.curve_objects(shown) | report.time_objects(shown, self.times),
            "unsupported": [fault._asdict() for fault in self.faults],
        }


def summarise(run: Run, store: Store, budgets: Sequence[int], faults: Sequence[Fault]) -> Summary:
    """Work out everything that the rows of this run say."""
    wanted = set(run.prompts)
    rows = [row for row in store.quality(run.rivals, run.weights) if (row.prompt, row.seed) in wanted]
    found = curves(rows, run.rivals, run.num_steps)
    base = next(curve for curve in found if curve.method == run.base)
    rivals = _rivals_of(found, run.base)
    times = median_ratios(store.times([*run.rivals, *loops()], run.weights))
    by_forwards = list(ratios(base, rivals, budgets))
    by_time = list(ratios_at_equal_time(base, rivals, budgets, times))
    return Summary(run, budgets, found, by_forwards, by_time, times, list(faults))


def _rivals_of(found: Sequence[Curve], base: str) -> list[Curve]:
    return [curve for curve in found if curve.method not in (base, FULL_METHOD)]
