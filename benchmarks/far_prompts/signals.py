"""Numbers that a server could know of a request, as deviations from what calibration saw.

All of them are logarithms of ratios or distances: 0 is as in calibration, and larger is farther from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.far_prompts.watch import Seen
from lemica_planner import PlanEntry
from lemica_planner.operator_graph import OperatorGraph

__all__ = ["Usual", "text_distance"]

_SMALLEST = 1e-12
_EARLY = 3  # computed steps
_SIZES = ("uncond", "cond", "combined", "difference", "guided")
_FORECASTS = ("reuse", "line", "own")
_KEYS = ("uncond", "cond", "both", "combined", "difference")


class Usual:
    """What calibration saw of one plan entry, and how a request deviates from it.

    Parameters
    ----------
    graph : OperatorGraph
    entry : PlanEntry
    seen : sequence of Seen
        Of the calibration samples, under this entry.
    """

    def __init__(self, graph: OperatorGraph, entry: PlanEntry, seen: Sequence[Seen]) -> None:
        self._edges = _edge_errors(graph, entry)
        self._sizes = _log_table(seen, "size", _SIZES)
        self._misses = {name: _log_table(seen, name, _KEYS) for name in _FORECASTS}

    def signals(self, seen: Seen) -> dict[str, float]:
        """Return every signal of one request by name."""
        found = {}
        sizes = _log_table([seen], "size", _SIZES)[0] - self._sizes.mean(axis=0)
        for at, key in enumerate(_SIZES):
            found[f"size of {key}, first step"] = float(np.abs(sizes[0, at]))
            found[f"size of {key}, first {_EARLY} steps"] = float(np.abs(sizes[:_EARLY, at]).max())
        for name, usual in self._misses.items():
            misses = _log_table([seen], name, _KEYS)[0] - usual.mean(axis=0)
            for at, key in enumerate(_KEYS):
                found |= {f"{name} of {key}, {how}": value for how, value in self._summaries(misses[:, at]).items()}
        return found

    def _summaries(self, misses: NDArray[np.float64]) -> dict[str, float]:
        """Reduce a forecast's log errors over the computed steps, relative to the usual ones."""
        weighted = self._edges * np.exp(misses)
        return {
            "mean": float(misses.mean()),
            "largest": float(misses.max()),
            f"mean of first {_EARLY}": float(misses[:_EARLY].mean()),
            "weighted largest": float(np.log(weighted.max() / self._edges.max())),
            "weighted square sum": float(np.log((weighted**2).sum() / (self._edges**2).sum()) / 2),
        }


def text_distance(text: NDArray[np.float64], usual: NDArray[np.float64]) -> float:
    """Return the distance to the nearest calibration prompt, in units of the usual distance between two of them.

    Parameters
    ----------
    text : ndarray, shape (width,)
        The prompt's text states, a mean over tokens.
    usual : ndarray, shape (prompts, width)
        Those of the calibration prompts.
    """
    apart = np.linalg.norm(usual[:, None] - usual[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    return float(np.linalg.norm(usual - text, axis=-1).min() / apart.min(axis=1).mean())


def _edge_errors(graph: OperatorGraph, entry: PlanEntry) -> NDArray[np.float64]:
    """Return the error of the edge that ends at each computed step but the first, 0 where nothing is skipped."""
    weights = graph.weights()
    chosen = {graph.candidates.segments[at].end: weights[at] for at in graph.candidates.on_path(entry.steps, weights)}
    return np.array([chosen.get(end, 0.0) for _, end in pairwise(entry.steps)])


def _log_table(seen: Sequence[Seen], name: str, keys: Sequence[str]) -> NDArray[np.float64]:
    """Return the logarithm of what was looked at, shape (requests, computed steps that have it, keys)."""
    looks = [[_with_both(steps[at][name]) for at in sorted(steps) if name in steps[at]] for steps in seen]
    return np.log([[[each[key] + _SMALLEST for key in keys] for each in steps] for steps in looks])


def _with_both(look: Mapping[str, float]) -> dict[str, float]:
    """Add the root mean square over the elements of both branches."""
    return {**look, "both": float(np.sqrt((look["uncond"] ** 2 + look["cond"] ** 2) / 2))}
