"""How sure a plan is: what other samples of the same kind would have chosen.

The samples of a calibration are drawn again with replacement (Efron, 1979), the graph is averaged over the draw and
solved, and the plan is compared with what the draw would have preferred.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemica_planner.errors import InvalidGraphError
from lemica_planner.graph import ErrorGraph
from lemica_planner.history_solver import Suffixes
from lemica_planner.operator_graph import OperatorGraph
from lemica_planner.solver import evaluate, solve_all

__all__ = ["Confidence", "confidence", "largest_regret"]

_DRAWS = 200
_PAIRS = 20
_REGRET = 0.02
_LARGEST = 64  # times the samples at hand

_Steps = tuple[int, ...]


class _Draw(NamedTuple):
    """A graph of some samples, solved: every budget's smallest worst edge, its path, and the worst edge of any path."""

    best: Mapping[int, float]
    steps: Callable[[int], _Steps]
    worst: Callable[[_Steps], float]


_Solve = Callable[[NDArray[np.intp]], _Draw]


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
    """Return what draws of the graph's samples say about its minimax paths, as they were before any refinement.

    Raises
    ------
    InvalidGraphError
        If the graph holds no errors of single samples, or of one only.
    """
    samples = _count_samples(graph)
    solve, rng = _solve(graph), np.random.default_rng(seed)
    chosen = solve(np.arange(samples)).steps
    drawn = [solve(rng.integers(0, samples, samples)) for _ in range(_DRAWS)]
    needed = _samples_needed(solve, samples, budgets, rng)
    found = []
    for budget in budgets:
        worst = [draw.worst(chosen(budget)) for draw in drawn]
        low, high = np.quantile(worst, (0.025, 0.975)).tolist()
        agreement = float(np.mean([draw.steps(budget) == chosen(budget) for draw in drawn]))
        regret = _mean_regret(worst, [draw.best[budget] for draw in drawn])
        found.append(Confidence(budget, samples, agreement, low, high, regret, needed[budget]))
    return found


def largest_regret(graph: ErrorGraph | OperatorGraph, budgets: Sequence[int], *, seed: int = 0) -> float:
    """Return the largest regret of the budgets' paths, a part of what `confidence` returns; raises the same."""
    samples = _count_samples(graph)
    solve, rng = _solve(graph), np.random.default_rng(seed)
    chosen = solve(np.arange(samples)).steps
    drawn = [solve(rng.integers(0, samples, samples)) for _ in range(_DRAWS)]
    regrets = (
        _mean_regret([draw.worst(chosen(at)) for draw in drawn], [draw.best[at] for draw in drawn]) for at in budgets
    )
    return max(regrets)


def _count_samples(graph: ErrorGraph | OperatorGraph) -> int:
    samples = 0 if graph.sample_errors is None else len(graph.sample_errors)
    if samples < 2:
        raise InvalidGraphError(f"confidence needs the errors of two samples or more; the graph has {samples}")
    return samples


def _solve(graph: ErrorGraph | OperatorGraph) -> _Solve:
    """Return what weighs the graph by some of its samples and solves it, as the plan was solved."""
    if isinstance(graph, OperatorGraph):
        return lambda picks: _with_history(graph.weights_of(picks))
    errors, allowed = np.asarray(graph.sample_errors, np.float64), np.isfinite(graph.weights)
    return lambda picks: _plain(ErrorGraph(np.where(allowed, errors[picks].mean(axis=0), np.inf)))


def _plain(graph: ErrorGraph) -> _Draw:
    found = solve_all(graph)
    best = {budget: solution.worst for budget, solution in found.items()}
    return _Draw(best, lambda budget: found[budget].steps, lambda steps: evaluate(graph, steps).worst)


def _with_history(weights: NDArray[np.float64]) -> _Draw:
    suffixes = Suffixes(weights)

    def worst(steps: _Steps) -> float:
        gaps = (0, *(end - start for start, end in pairwise(steps)))
        return float(max(weights[gap, start, end] for gap, (start, end) in zip(gaps, pairwise(steps), strict=False)))

    return _Draw(suffixes.worst(0, 0), lambda budget: suffixes.path(0, 0, budget), worst)


def _samples_needed(
    solve: _Solve, samples: int, budgets: Sequence[int], rng: np.random.Generator
) -> dict[int, int | None]:
    """Double the size of a calibration until two of them, drawn apart, regret each other's paths by little."""
    found: dict[int, int | None] = dict.fromkeys(budgets)
    size, left = samples, list(budgets)
    while left and size <= _LARGEST * samples:
        pairs = [[solve(rng.integers(0, samples, size)) for _ in range(2)] for _ in range(_PAIRS)]
        for budget in tuple(left):
            worst = [second.worst(first.steps(budget)) for first, second in pairs]
            if _mean_regret(worst, [second.best[budget] for _, second in pairs]) <= _REGRET:
                found[budget] = size
                left.remove(budget)
        size *= 2
    return found


def _mean_regret(worst: Sequence[float], best: Sequence[float]) -> float:
    ratios = [ours / theirs - 1 for ours, theirs in zip(worst, best, strict=True) if theirs > 0]
    return float(np.mean(ratios)) if ratios else 0.0
