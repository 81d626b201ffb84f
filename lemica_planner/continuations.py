"""How to go on from the middle of a path with more computed steps, or fewer, than it was planned with.

A plan holds the best path of every budget, not the graph. But its paths together span a graph of their own: every edge
that some path takes, where the computed steps before it are the same as on that path, and every direct edge. The
suffix of a best path is the best way on from where it begins, so the dynamic program over these edges finds what the
whole graph would give wherever the plan's paths lead there, and a path of edges of known errors everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from lemica_planner.plan import CachePlan
from lemica_planner.plan_entry import PlanEntry
from lemica_planner.sparse_suffixes import Edge, SparseSuffixes

__all__ = ["Continuations"]


class Continuations:
    """The ways on from any beginning that follows a plan.

    An edge's error is not in the plan, only the errors of the paths that take it: the smallest of their worst errors
    is its upper bound. Where a plan's errors were never measured, a path counts as the worse the fewer steps it has.

    Parameters
    ----------
    plan : CachePlan
    looks_back : int
        How many computed steps before the last one the plan's operators look at: 0 or 1.

    Raises
    ------
    ValueError
        For any other `looks_back`: the program's nodes know one gap.

    Notes
    -----
    The dynamic program runs once, here, so that nothing waits for it later; see
    `lemica_planner.sparse_suffixes.SparseSuffixes`.
    """

    def __init__(self, plan: CachePlan, *, looks_back: int) -> None:
        if looks_back not in (0, 1):
            raise ValueError(f"looks_back is {looks_back}; allowed are 0 and 1")
        self._plan = plan
        self._looks_back = looks_back
        self._is_measured = all(entry.errors is not None for entry in plan.entries.values())
        self._entries: dict[Edge, PlanEntry] = {}
        for entry in plan.entries.values():
            for edge in self._edges(entry.steps):
                self._entries[edge] = min(self._entries.get(edge, entry), entry, key=self._severity)
        severities = {edge: self._severity(entry) for edge, entry in self._entries.items()}
        self._suffixes = SparseSuffixes(severities, self._num_steps, has_gaps=looks_back == 1)

    def totals(self, computed: Sequence[int], *, floor: int) -> list[int]:
        """Return the numbers of computed steps, those behind included, with which the path can end, ascending.

        Parameters
        ----------
        computed : sequence of int
            The computed steps so far, of a path of the plan or of `path`; the last one has just been computed.
        floor : int
            A budget of the plan, or all steps: no total is smaller, and no way on has an edge that may be worse than
            the worst of this budget.
        """
        limit = self._severity(self._plan.resolve("full" if floor == self._num_steps else floor))
        behind, at = len(computed) - 1, self._state(computed)
        worst = self._suffixes.worst(*at)
        return [behind + nodes for nodes, error in worst.items() if behind + nodes >= floor and error <= limit]

    def worst_ahead(self, computed: Sequence[int], total: int) -> float:
        """Return the upper bound of the worst error on the way that is left."""
        return self._suffixes.worst(*self._state(computed))[total - len(computed) + 1]

    def path(self, computed: Sequence[int], total: int) -> PlanEntry:
        """Return the whole path that has `total` steps after all; its errors are the edges' upper bounds."""
        step, gap = self._state(computed)
        ahead = self._suffixes.path(step, gap, total - len(computed) + 1)
        steps = (*computed[:-1], *ahead)
        edges = self._edges(steps)
        sources = {edge.start: self._entries[edge] for edge in edges}
        operators = tuple(self._operator(sources.get(start), start) for start in steps[:-1])
        fitted = {
            at: weights
            for edge in edges
            for at, weights in self._entries[edge].weights.items()
            if edge.start < at < edge.end
        }
        return PlanEntry(steps, self._errors(steps, edges), operators, fitted)

    @property
    def _num_steps(self) -> int:
        return self._plan.provenance.num_inference_steps

    def _edges(self, steps: Sequence[int]) -> list[Edge]:
        """Return the edges of a path that skip steps."""
        gaps = [0, *(end - start for start, end in pairwise(steps))]
        known = [gap if self._looks_back else 0 for gap in gaps]
        edges = (Edge(gap, start, end) for gap, (start, end) in zip(known, pairwise(steps), strict=False))
        return [edge for edge in edges if edge.end > edge.start + 1]

    def _state(self, computed: Sequence[int]) -> tuple[int, int]:
        gap = computed[-1] - computed[-2] if len(computed) > 1 and self._looks_back else 0
        return computed[-1], gap

    def _severity(self, entry: PlanEntry) -> float:
        if self._is_measured and entry.predicted_error is not None:
            return entry.predicted_error
        return float(self._num_steps - entry.budget)

    def _operator(self, entry: PlanEntry | None, start: int) -> str:
        """Return what fills in the steps after `start`; any operator where there are none."""
        if entry is None or entry.operators is None:
            return self._plan.provenance.operator
        return entry.operators[entry.steps.index(start)]

    def _errors(self, steps: Sequence[int], edges: Sequence[Edge]) -> tuple[float, ...] | None:
        if not self._is_measured:
            return None
        bounds = sorted((self._severity(self._entries[edge]) for edge in edges), reverse=True)
        return (*bounds, *(0.0,) * (len(steps) - 1 - len(bounds)))
