"""The lexicographically minimax way on from any state of a graph with few edges.

The program of `lemica_planner.history_solver`, for edges that are listed and not a table of all pairs. The errors of a
way, as ranks, are kept as one integer: the sum of ``2**(k * rank)``, where k bits count to T. Of two ways with the same
number of edges, the one with the lexicographically smaller errors, the largest first, has the smaller integer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Edge", "SparseSuffixes"]


class Edge(NamedTuple):
    """An edge that skips steps, after a gap to the computed step before it; 0 where gaps do not matter."""

    gap: int
    start: int
    end: int


class _Way(NamedTuple):
    errors: int  # see the module
    to: int  # the next computed step


class SparseSuffixes:
    """Best ways on, by state (step, gap) and number of nodes.

    Parameters
    ----------
    errors : mapping of Edge to float
        Not negative. Every edge to the next step is there besides, and costs nothing.
    num_steps : int
        T.
    has_gaps : bool
        Whether states differ by the gap before them; without, all gaps are 0.

    Notes
    -----
    O(E * T) additions of integers of O(E) bits for E edges, once. Ties go to the smallest steps.
    """

    def __init__(self, errors: Mapping[Edge, float], num_steps: int, *, has_gaps: bool) -> None:
        self._levels = sorted({0.0, *errors.values()})
        self._bits = num_steps.bit_length()
        self._has_gaps = has_gaps
        self._ends = self._by_state(errors)
        last = num_steps - 1
        self._ways: dict[tuple[int, int], dict[int, _Way]] = {}
        for step, gap in sorted(self._states(errors, num_steps), reverse=True):
            self._ways[step, gap] = {1: _Way(0, last)} if step == last else self._ways_from(step, gap)

    def worst(self, step: int, gap: int) -> dict[int, float]:
        """Return the largest error on the way to the last step, by the number of nodes it has, `step` included."""
        ways = self._ways[step, gap]
        return {nodes: self._largest(ways[nodes].errors) for nodes in sorted(ways)}

    def path(self, step: int, gap: int, nodes: int) -> tuple[int, ...]:
        """Return the `nodes` steps of one of these ways, `step` first."""
        steps = [step]
        for left in range(nodes, 1, -1):
            end = self._ways[steps[-1], gap][left].to
            gap = self._gap(steps[-1], end)
            steps.append(end)
        return tuple(steps)

    def _by_state(self, errors: Mapping[Edge, float]) -> Mapping[tuple[int, int], list[tuple[int, int]]]:
        """Return the end and the integer of every listed edge that leaves a state."""
        rank = {error: at for at, error in enumerate(self._levels)}
        ends: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for (gap, start, end), error in errors.items():
            ends[start, gap].append((end, 1 << self._bits * rank[error] if rank[error] else 0))
        return ends

    def _states(self, errors: Mapping[Edge, float], num_steps: int) -> set[tuple[int, int]]:
        direct = {(step, self._gap(step - 1, step)) for step in range(1, num_steps)}
        return {(0, 0)} | direct | {(end, self._gap(start, end)) for _, start, end in errors}

    def _ways_from(self, step: int, gap: int) -> dict[int, _Way]:
        best: dict[int, _Way] = {}
        for end, errors in sorted([(step + 1, 0), *self._ends.get((step, gap), ())]):
            for nodes, way in self._ways[end, self._gap(step, end)].items():
                found = errors + way.errors
                if nodes + 1 not in best or found < best[nodes + 1].errors:
                    best[nodes + 1] = _Way(found, end)
        return best

    def _gap(self, start: int, end: int) -> int:
        return end - start if self._has_gaps else 0

    def _largest(self, errors: int) -> float:
        return self._levels[(errors.bit_length() - 1) // self._bits] if errors else 0.0
