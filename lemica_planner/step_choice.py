"""Which way of spending a number of forwards is best, and whether caching is what makes it so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemica_planner.provenance import Sample
from lemica_planner.samplers import Way

__all__ = ["Choice", "Comparison"]

RUN = "run"  # in place of a reference: what the run itself cost
HIGHER_IS_BETTER = frozenset({"psnr_db", "ssim", "fidelity"})
_DRAWS = 2000
_TITLES = {"fewer": "fewer steps", "timesteps": "chosen timesteps"}


class Choice(NamedTuple):
    """The best way of each kind at one cost, by one measure against one reference.

    Attributes
    ----------
    cost : int
    reference, measure : str
    best : mapping of str to int
        By kind, and for ``uncached``, which is ``fewer`` and ``timesteps`` together: the way's number.
    gain : float
        By how much caching is better than the best of the uncached: a mean over samples, each with the two ways that
        are best on the other samples, so that choosing from more ways is no advantage.
    low, high : float
        Its 95 % bootstrap interval; with one sample, the gain itself.
    """

    cost: int
    reference: str
    measure: str
    best: Mapping[str, int]
    gain: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``yes``: caching wins. ``no``: it loses. ``open``: these samples cannot tell, or nothing was cached."""
        if "cached" not in self.best or "uncached" not in self.best:
            return "open"
        return "yes" if self.low > 0 else "no" if self.high < 0 else "open"


@dataclass(frozen=True)
class Comparison:
    """Ways, and how far their videos are from the references.

    Attributes
    ----------
    ways : tuple of Way
    samples : tuple of Sample
    values : mapping of (str, str) to ndarray, shape (ways, samples)
        By reference and measure.
    references : mapping of str to Way
    """

    ways: tuple[Way, ...]
    samples: tuple[Sample, ...]
    values: Mapping[tuple[str, str], NDArray[np.float64]]
    references: Mapping[str, Way]

    def choices(self, costs: Sequence[int]) -> list[Choice]:
        """Return the best ways at each cost, by every measure against every reference."""
        compared = [key for key in self.values if key[0] != RUN]
        return [self._choose(cost, *key) for key in compared for cost in costs if self._at(cost)]

    def to_dict(self, costs: Sequence[int], stated: Mapping[str, Any]) -> dict[str, Any]:
        """Return everything as JSON values, with `stated` first."""
        return {
            **stated,
            "samples": [sample.to_list() for sample in self.samples],
            "costs": list(costs),
            "ways": [self._row(number) for number in range(len(self.ways))],
            "choices": [self._choice_row(choice) for choice in self.choices(costs)],
            "curves": {f"{reference}_{measure}": self._curve(reference, measure) for reference, measure in self.values},
        }

    def _at(self, cost: int) -> dict[str, list[int]]:
        """Return the numbers of the ways of this cost, by kind."""
        found: dict[str, list[int]] = {}
        for number, way in enumerate(self.ways):
            if way.cost == cost and way not in self.references.values():
                found.setdefault(way.kind, []).append(number)
                if way.kind != "cached":
                    found.setdefault("uncached", []).append(number)
        return found

    def _losses(self, reference: str, measure: str) -> NDArray[np.float64]:
        """Return the values turned so that less is better."""
        return self.values[reference, measure] * (-1 if measure in HIGHER_IS_BETTER else 1)

    def _choose(self, cost: int, reference: str, measure: str) -> Choice:
        losses, kinds = self._losses(reference, measure), self._at(cost)
        best = {kind: numbers[int(losses[numbers].mean(axis=1).argmin())] for kind, numbers in kinds.items()}
        gains = np.zeros(1)
        if "cached" in kinds and "uncached" in kinds:
            gains = _unseen(losses[kinds["uncached"]]) - _unseen(losses[kinds["cached"]])
        low, high = interval(gains)
        return Choice(cost, reference, measure, best, float(gains.mean()), low, high)

    def _row(self, number: int) -> dict[str, Any]:
        way = self.ways[number]
        values: dict[str, dict[str, list[float]]] = {}
        for (reference, measure), table in self.values.items():
            values.setdefault(reference, {})[measure] = table[number].tolist()
        return {"name": way.name, "kind": way.kind, "cost": way.cost, "way": way.to_dict(), "values": values}

    def _choice_row(self, choice: Choice) -> dict[str, Any]:
        table = self.values[choice.reference, choice.measure]
        best = {
            kind: {"way": at, "name": self.ways[at].name, "value": float(table[at].mean())}
            for kind, at in choice.best.items()
        }
        return choice._asdict() | {"best": best, "verdict": choice.verdict}

    def _curve(self, reference: str, measure: str) -> dict[str, Any]:
        """Return the best way of each method at each cost: kinds, and cached ones by their operator."""
        rows = sorted(self._curve_rows(reference, measure), key=lambda row: (row["method"], row["forwards"]))
        return {"title": f"{measure} against {reference}", "unit": measure, "rows": rows}

    def _curve_rows(self, reference: str, measure: str) -> Iterator[dict[str, Any]]:
        losses, table = self._losses(reference, measure).mean(axis=1), self.values[reference, measure]
        methods: dict[tuple[str, int], list[int]] = {}
        for number, way in enumerate(self.ways):
            methods.setdefault((_TITLES.get(way.kind, way.operator), way.cost), []).append(number)
        for (method, cost), numbers in methods.items():
            best = min(numbers, key=lambda number: losses[number])
            low, high = interval(table[best])
            value = float(table[best].mean())
            yield {"method": method, "forwards": cost, "value": value, "low": low, "high": high}


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean."""
    picks = np.random.default_rng(0).integers(0, len(values), (_DRAWS, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def _unseen(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each sample the loss of the way that is best on the others; of the only sample, the best loss."""
    samples = losses.shape[1]
    if samples == 1:
        best: NDArray[np.float64] = losses.min(axis=0)
        return best
    others = (losses.sum(axis=1, keepdims=True) - losses) / (samples - 1)
    chosen: NDArray[np.float64] = losses[others.argmin(axis=0), np.arange(samples)]
    return chosen
