"""Improve paths on their true outcome: run whole, not segment by segment.

Edge weights see one segment at a time, but the segments of a path interact. So the best paths by three readings of the
weights (worst edge, sum, sum of squares) run whole on the calibration samples, and from the best of them a local search
moves interior steps by one, most promising first, as long as the outcome falls.

Samples differ more than neighbouring paths do, and the best of many paths on a few samples is often best by chance. So
a path replaces another only if it is better beyond doubt of one standard error, sample by sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lemica_planner.expected_work import ExpectedWork
from lemica_planner.history_solver import shortest_with_history, solve_with_history
from lemica_planner.measuring import Measurer
from lemica_planner.operator_graph import OperatorGraph
from lemica_planner.plan_entry import PlanEntry
from lemica_planner.risk import risk_measure

__all__ = ["Refiner", "is_better"]

_SMALLEST = 1e-12


class Refiner:
    """Refines the paths of a graph.

    Parameters
    ----------
    graph : OperatorGraph
        Its edges, operators and samples.
    measurer : Measurer
    work : ExpectedWork
        What is foreseen; its `refine` is how many whole paths may be run for each budget, on every sample.
    """

    def __init__(self, graph: OperatorGraph, measurer: Measurer, work: ExpectedWork) -> None:
        self._graph, self._measurer, self._work, self._evaluations = graph, measurer, work, work.refine
        self._weights = graph.weights()
        table = graph.candidates.weights(self._weights)
        self._forwards = 0
        self._starts = [solve_with_history(table), shortest_with_history(table), shortest_with_history(table**2)]

    def refined(self, budgets: Sequence[int]) -> OperatorGraph:
        """Return the graph with the best paths found for `budgets`, and what that cost."""
        found = {budget: self._refine_next(budgets[at:]) for at, budget in enumerate(budgets)}
        provenance = self._graph.provenance
        known = {**provenance.calibration, "refine_forwards": self._forwards}
        return replace(self._graph, refined=found, provenance=replace(provenance, calibration=known))

    def refine(self, budget: int) -> PlanEntry:
        """Return the best path found, with its outcome; never one worse than the minimax path on these samples."""
        starts = list(dict.fromkeys(paths[budget] for paths in self._starts))
        best, tried = starts[0], {starts[0]: self._outcomes(starts[0])}
        while len(tried) < self._evaluations:
            steps = next((near for near in (*starts, *self._neighbours(best)) if near not in tried), None)
            if steps is None:
                break
            tried[steps] = self._outcomes(steps)
            best = steps if is_better(tried[steps], tried[best], self._graph.risk) else best
        return replace(self._graph.entry(best, self._weights), outcome=_risk(self._graph.risk, tried[best]))

    def _refine_next(self, budgets: Sequence[int]) -> PlanEntry:
        """Refine the first of the budgets that are left."""
        self._work.before_refinement(self._graph.samples, budgets)
        return self.refine(budgets[0])

    def _outcomes(self, steps: Sequence[int]) -> NDArray[np.float64]:
        """Return what the path changes in each sample's end result."""
        path = self._graph.entry(steps, self._weights)
        self._forwards += len(self._graph.samples) * len(steps)  # also when the journal knows it: what one run costs
        return self._measurer.outcomes(self._graph.samples, [path])[:, 0]

    def _neighbours(self, steps: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Yield the paths with one interior step moved by one, the smallest sum of squares first."""
        moved = [
            tuple(sorted({*steps[:at], steps[at] + by, *steps[at + 1 :]}))
            for at in range(1, len(steps) - 1)
            for by in (-1, 1)
        ]
        allowed = [path for path in moved if len(path) == len(steps) and self._is_allowed(path)]
        yield from sorted(allowed, key=self._sum_of_squares)

    def _is_allowed(self, steps: Sequence[int]) -> bool:
        switches = set(self._graph.candidates.switches)
        return int(np.diff(steps).max()) <= self._graph.max_span and switches <= set(steps)

    def _sum_of_squares(self, steps: Sequence[int]) -> float:
        edges: NDArray[np.float64] = self._weights[self._graph.candidates.on_path(steps, self._weights)]
        return float((edges**2).sum())


def is_better(trial: NDArray[np.float64], best: NDArray[np.float64], risk: str) -> bool:
    """Return whether the trial's risk is lower, and its logarithm by a standard error, sample by sample.

    Parameters
    ----------
    trial, best : ndarray, shape (samples,)
        What two paths change on the same samples.
    risk : str
        See `lemica_planner.risk.risk_measure`.
    """
    gains = np.log(np.maximum(best, _SMALLEST) / np.maximum(trial, _SMALLEST))
    doubt = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return _risk(risk, trial) < _risk(risk, best) and bool(gains.mean() > doubt)


def _risk(risk: str, outcomes: NDArray[np.float64]) -> float:
    return float(risk_measure(risk, outcomes[:, None])[0])
