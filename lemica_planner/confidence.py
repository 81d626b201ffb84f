"""How sure a plan is: what other samples of the same kind would have chosen.

The samples of a calibration are drawn again with replacement (Efron, 1979), the graph is averaged over the draw and
solved, and the plan is compared with what the draw would have preferred.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lemica_planner.errors import InvalidGraphError
from lemica_planner.graph import ErrorGraph
from lemica_planner.operator_graph import OperatorGraph
from lemica_planner.solver import evaluate, solve_all

__all__ = ["Confidence", "confidence"]

_DRAWS = 200
_REGRET = 0.02
_LARGEST = 64  # times the samples at hand

_Weigh = Callable[[NDArray[np.intp]], ErrorGraph]


@dataclass(frozen=True)
class Confidence:
    """What draws say about the path of one budget.

    Attributes
    ----------
    budget : int
    samples : int
        Samples of the calibration.
    agreement : float
        Share of the draws that choose the very same steps.
    worst_low, worst_high : float
        95 % interval of the weight of the path's worst edge.
    regret : float
        Mean over draws of how much larger the path's worst edge is than that of the draw's own best path, as a share.
    samples_needed : int or None
        About how many samples bring the regret to 2 %, at least those at hand; None if 64 times as many do not.
    """

    budget: int
    samples: int
    agreement: float
    worst_low: float
    worst_high: float
    regret: float
    samples_needed: int | None


def confidence(graph: ErrorGraph | OperatorGraph, budgets: Sequence[int], *, seed: int = 0) -> list[Confidence]:
    """Return what draws of the graph's samples say about its minimax paths.

    The steps are compared, each edge at its best operator and history.

    Raises
    ------
    InvalidGraphError
        If the graph holds no errors of single samples, or of one only.
    """
    samples = 0 if graph.sample_errors is None else len(graph.sample_errors)
    if samples < 2:
        raise InvalidGraphError(f"confidence needs the errors of two samples or more; the graph has {samples}")
    weigh = _weigh(graph)
    rng = np.random.default_rng(seed)
    chosen = {at: found.steps for at, found in solve_all(weigh(np.arange(samples))).items()}
    drawn = [weigh(rng.integers(0, samples, samples)) for _ in range(_DRAWS)]
    solved = [solve_all(each) for each in drawn]
    found = []
    for budget in budgets:
        worst = np.array([evaluate(each, chosen[budget]).worst for each in drawn])
        best = np.array([each[budget].worst for each in solved])
        low, high = np.quantile(worst, (0.025, 0.975)).tolist()
        agreement = float(np.mean([each[budget].steps == chosen[budget] for each in solved]))
        regret = _mean_regret(worst, best)
        needed = _samples_needed(weigh, samples, budget, rng)
        found.append(Confidence(budget, samples, agreement, low, high, regret, needed))
    return found


def _weigh(graph: ErrorGraph | OperatorGraph) -> _Weigh:
    """Return what averages the graph over some of its samples."""
    if isinstance(graph, OperatorGraph):
        return graph.of_samples
    errors, allowed = np.asarray(graph.sample_errors, np.float64), np.isfinite(graph.weights)
    return lambda picks: ErrorGraph(np.where(allowed, errors[picks].mean(axis=0), np.inf))


def _samples_needed(weigh: _Weigh, samples: int, budget: int, rng: np.random.Generator) -> int | None:
    """Double the size of a calibration until two of them, drawn apart, regret each other's path by little."""
    size = samples
    while size <= _LARGEST * samples:
        pairs = [[weigh(rng.integers(0, samples, size)) for _ in range(2)] for _ in range(_DRAWS // 10)]
        paths = [solve_all(first)[budget].steps for first, _ in pairs]
        worst = np.array([evaluate(second, steps).worst for steps, (_, second) in zip(paths, pairs, strict=True)])
        best = np.array([solve_all(second)[budget].worst for _, second in pairs])
        if _mean_regret(worst, best) <= _REGRET:
            return size
        size *= 2
    return None


def _mean_regret(worst: NDArray[np.float64], best: NDArray[np.float64]) -> float:
    allowed = best > 0
    return float(np.mean(worst[allowed] / best[allowed] - 1)) if allowed.any() else 0.0
