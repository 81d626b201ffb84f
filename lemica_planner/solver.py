"""Choose which steps to compute: the paths of an error graph with exactly B nodes.

Two objectives, one dynamic program. With ``best(i, b)`` the best path of b nodes from step i to the last step,

    best(i, b) = min over j > i of  w(i, j) + best(j, b - 1)

where *min* and *+* are the objective's: for `solve` a path costs the multiset of its edge weights, compared from the
largest down (arXiv 2511.00090, eq. 5); for `shortest_path` their sum. Paths of equal length have multisets of equal
size, and adding the same weight to two of them keeps their order and their equality, so the program is exact.
Running it from the last step backwards makes ties exact too: among equal costs the smallest next step is taken, and a
common first step changes nothing about which continuation is lexicographically smallest.

Nothing is rounded: multisets hold the ranks of the weights among each other, sums are integers (`_SumCosts`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lemica_planner.errors import InfeasibleBudgetError, InvalidGraphError
from lemica_planner.graph import ErrorGraph

__all__ = [
    "Solution",
    "evaluate",
    "feasible_budgets",
    "shortest_path",
    "shortest_path_all",
    "solve",
    "solve_all",
    "uniform_steps",
]

_BLOCK_BYTES = 1 << 20  # candidates examined at once: they should stay in the processor's cache


@dataclass(frozen=True)
class Solution:
    """A path through an error graph.

    Attributes
    ----------
    steps : tuple of int
        The computed steps, ascending, from 0 to T-1.
    errors : tuple of float
        The weights of the path's ``len(steps) - 1`` edges from largest to smallest, direct edges (0.0) included.
    """

    steps: tuple[int, ...]
    errors: tuple[float, ...]

    @property
    def budget(self) -> int:
        """Number of computed steps."""
        return len(self.steps)

    @property
    def worst(self) -> float:
        """The largest error of an edge: what the plan predicts for the video."""
        return self.errors[0]

    @property
    def total(self) -> float:
        """The sum of the errors: what `shortest_path` minimises."""
        return math.fsum(self.errors)


def solve(graph: ErrorGraph, budget: int) -> Solution:
    """Return the path with `budget` computed steps whose errors are lexicographically smallest.

    Errors are compared from the largest down: first the worst, then the next. Of equal paths the lexicographically
    smallest tuple of steps is returned, so the same weights always give the same plan.

    Parameters
    ----------
    graph : ErrorGraph
        T steps, edges up to ``graph.max_span`` = L.
    budget : int
        Number of computed steps, both ends included; 2 <= budget <= T.

    Raises
    ------
    InfeasibleBudgetError
        If no path has exactly `budget` nodes; it names the smallest feasible budget.

    Notes
    -----
    O(budget * T * L) candidates of O(min(budget, T - budget)) numbers each; memory O(T * (budget + L)).
    Source: LeMiCa, arXiv 2511.00090, eq. 5.

    Examples
    --------
    >>> graph = ErrorGraph([[0, 0, 0.5, 0.9], [0, 0, 0, 0.2], [0, 0, 0, 0], [0, 0, 0, 0]])
    >>> solve(graph, 3)
    Solution(steps=(0, 1, 3), errors=(0.2, 0.0))
    """
    budget = _feasible(graph, budget)
    return _path(graph, _choices(_MinimaxCosts(graph), graph.num_steps, budget), budget)


def solve_all(graph: ErrorGraph) -> dict[int, Solution]:
    """Return what `solve` gives for every feasible budget, from one dynamic program.

    Notes
    -----
    O(T**2 * L) candidates of O(T) numbers each: milliseconds at T = 50, seconds at T = 1000 and L = 16.
    """
    return _all_paths(graph, _MinimaxCosts(graph))


def shortest_path(graph: ErrorGraph, budget: int) -> Solution:
    """Return the path with `budget` computed steps whose sum of errors is smallest: the paper's rival.

    Sums are compared exactly, as if in real numbers, and ties go to the lexicographically smallest steps.
    Parameters, errors and complexity as for `solve`, each candidate being one (long) integer.
    """
    budget = _feasible(graph, budget)
    return _path(graph, _choices(_SumCosts(graph), graph.num_steps, budget), budget)


def shortest_path_all(graph: ErrorGraph) -> dict[int, Solution]:
    """Return what `shortest_path` gives for every feasible budget, from one dynamic program."""
    return _all_paths(graph, _SumCosts(graph))


def uniform_steps(num_steps: int, budget: int) -> tuple[int, ...]:
    """Return `budget` evenly spaced steps from 0 to ``num_steps - 1``, halves rounded up: the rival without a graph.

    Raises
    ------
    ValueError
        Unless ``2 <= budget <= num_steps``.

    Examples
    --------
    >>> uniform_steps(10, 4)
    (0, 3, 6, 9)
    """
    if not 2 <= budget <= num_steps:
        raise ValueError(f"budget must lie between 2 and the {num_steps} steps; got {budget}")
    gaps = budget - 1
    return tuple((2 * k * (num_steps - 1) + gaps) // (2 * gaps) for k in range(budget))


def evaluate(graph: ErrorGraph, steps: Sequence[int]) -> Solution:
    """Return any path with the errors that `graph` gives it; ``inf`` where an edge is not allowed.

    Raises
    ------
    InvalidGraphError
        If `steps` do not ascend strictly from 0 to T-1.
    """
    path = tuple(map(operator.index, steps))
    ascending = all(start < end for start, end in pairwise(path))
    if len(path) < 2 or path[0] != 0 or path[-1] != graph.num_steps - 1 or not ascending:
        raise InvalidGraphError(f"steps must ascend strictly from 0 to {graph.num_steps - 1}; got {path}")
    errors = graph.weights[list(path[:-1]), list(path[1:])]
    return Solution(path, tuple(np.sort(errors)[::-1].tolist()))


def feasible_budgets(graph: ErrorGraph) -> tuple[int, ...]:
    """Return every budget that has a path, ascending; the last one is T.

    Not every number between the smallest and T need be among them: where reuse is allowed over three steps but not
    over two, a path can only shrink by two nodes at a time.
    """
    last = graph.num_steps - 1
    reach = [0] * last + [1 << 1]  # bit b of reach[i]: a path of b nodes leads from i to the last step
    for start in range(last - 1, -1, -1):
        for end in np.flatnonzero(np.isfinite(graph.weights[start, start + 1 :])).tolist():
            reach[start] |= reach[start + 1 + end] << 1
    return tuple(budget for budget in range(2, last + 2) if reach[0] >> budget & 1)


class _Costs(Protocol):
    """The costs of the best paths of one number of nodes, for every first step."""

    span: int

    def extend(self, rows: range, nodes: int) -> NDArray[np.intp]:
        """Move on to paths of `nodes` nodes that start at `rows`; return for each its best edge's span, less 1."""
        ...


class _MinimaxCosts:
    """Multisets of weight ranks, sorted descending, compared place by place.

    A rank is a weight's position among the graph's distinct weights: 0 for 0.0 and `_forbidden`, above all others,
    for ``inf``. Zeros pad on the right, so direct edges need no room: of the ``nodes - 1`` edges at most
    ``T - nodes`` skip a step. A row that begins with `_forbidden` stands for "no path" and stays that way, because
    the largest element of a multiset never falls. As big-endian bytes such rows compare like the sequences
    themselves (`memcmp`), which is how numpy orders byte strings; no hash is involved.
    """

    def __init__(self, graph: ErrorGraph) -> None:
        table = _edge_table(graph)
        distinct = np.unique(table[np.isfinite(table)])
        self.span = table.shape[1]
        self._steps = graph.num_steps
        self._forbidden = len(distinct)
        self._ranks = np.searchsorted(distinct, table).astype(np.min_scalar_type(self._forbidden))
        self._tails = self._empty(1)
        self._tails[self._steps - 1, 1] = 0  # the last step alone: a path without edges

    def extend(self, rows: range, nodes: int) -> NDArray[np.intp]:
        width = max(1, min(nodes - 1, self._steps - nodes))
        tails = self._empty(width)
        windows = sliding_window_view(self._tails, self.span, axis=0).transpose(0, 2, 1)  # [i + 1, s]: row i + 1 + s
        chosen = np.empty(len(rows), np.intp)
        block = max(1, _BLOCK_BYTES // (self.span * width * tails.itemsize))
        for first in range(rows.start, rows.stop, block):
            last = min(first + block, rows.stop)
            best = self._inserted(windows[first + 1 : last + 1], self._ranks[first:last], width)
            chosen[first - rows.start : last - rows.start], tails[first:last, 1 : width + 1] = _smallest(best)
        self._tails = tails
        return chosen

    def _empty(self, width: int) -> NDArray[Any]:
        """Return rows that stand for "no path"; columns: the sentinel, the multiset, a zero to grow into."""
        tails = np.zeros((self._steps + self.span, width + 2), self._ranks.dtype)
        tails[:, :2] = self._forbidden
        return tails

    @staticmethod
    def _inserted(tails: NDArray[Any], ranks: NDArray[Any], width: int) -> NDArray[Any]:
        """Return `tails` with `ranks` put where they belong; shape (rows, span, width).

        With x descending and x[-1] = infinity, inserting w gives ``max(x[k], min(x[k - 1], w))`` at place k.
        """
        shifted = np.minimum(tails[..., :width], ranks[..., None])
        return np.maximum(shifted, tails[..., 1 : width + 1], out=shifted)


class _SumCosts:
    """Sums of weights, as Python integers: every finite float is an integer times a power of two."""

    def __init__(self, graph: ErrorGraph) -> None:
        table = _edge_table(graph)
        allowed = np.isfinite(table)
        self.span = table.shape[1]
        self._edges = np.zeros(table.shape, object)
        self._edges[allowed] = _integers(table[allowed])
        self._forbidden = 1 + graph.num_steps * int(self._edges.max())  # above the sum of any path
        self._edges[~allowed] = self._forbidden
        self._tails = np.full(graph.num_steps + self.span, self._forbidden, object)
        self._tails[graph.num_steps - 1] = 0

    def extend(self, rows: range, nodes: int) -> NDArray[np.intp]:
        windows = sliding_window_view(self._tails, self.span)
        sums = self._edges[rows.start : rows.stop] + windows[rows.start + 1 : rows.stop + 1]
        chosen: NDArray[np.intp] = sums.argmin(axis=1)
        self._tails = np.full_like(self._tails, self._forbidden)
        self._tails[rows.start : rows.stop] = np.minimum(sums[np.arange(len(rows)), chosen], self._forbidden)
        return chosen


def _edge_table(graph: ErrorGraph) -> NDArray[np.float64]:
    """Return ``table[i, s] = weights[i, i + 1 + s]`` for the spans in use, ``inf`` beyond the last step."""
    steps, span = graph.num_steps, graph.max_span
    padded = np.full((steps, steps + span), np.inf)
    padded[:, :steps] = graph.weights
    rows = np.arange(steps)[:, None]
    table: NDArray[np.float64] = padded[rows, rows + 1 + np.arange(span)]
    return table


def _integers(weights: NDArray[np.float64]) -> list[int]:
    """Return `weights` times one power of two that makes every one of them an integer, exactly."""
    fractions, exponents = np.frexp(weights)
    mantissas = np.ldexp(fractions, 53).astype(np.int64).tolist()
    shifts = (exponents - exponents.min()).tolist()
    return [mantissa << shift for mantissa, shift in zip(mantissas, shifts, strict=True)]


def _smallest(rows: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return, along the middle axis, where the lexicographically smallest row is first found, and that row."""
    big_endian = rows.astype(rows.dtype.newbyteorder(">"))
    keys = big_endian.view(f"S{rows.shape[-1] * rows.itemsize}")[..., 0]
    chosen = keys.argmin(axis=1)
    return chosen, rows[np.arange(len(rows)), chosen]


def _choices(costs: _Costs, num_steps: int, layers: int) -> NDArray[np.int32]:
    """Run the dynamic program up to paths of `layers` nodes.

    Returns ``choices[b, i]``: the step after i on the best path of b nodes from i. Entries without a path are
    meaningless. Rows too early or too late to have a path of b nodes are not looked at.
    """
    choices = np.zeros((layers + 1, num_steps), np.int32)
    for nodes in range(2, layers + 1):
        rows = range(max(0, num_steps - 1 - costs.span * (nodes - 1)), num_steps - nodes + 1)
        choices[nodes, rows.start : rows.stop] = costs.extend(rows, nodes) + np.arange(rows.start, rows.stop) + 1
    return choices


def _path(graph: ErrorGraph, choices: NDArray[np.int32], budget: int) -> Solution:
    steps = [0]
    for nodes in range(budget, 1, -1):
        steps.append(int(choices[nodes, steps[-1]]))
    return evaluate(graph, steps)


def _all_paths(graph: ErrorGraph, costs: _Costs) -> dict[int, Solution]:
    choices = _choices(costs, graph.num_steps, graph.num_steps)
    return {budget: _path(graph, choices, budget) for budget in feasible_budgets(graph)}


def _feasible(graph: ErrorGraph, budget: int) -> int:
    """Return `budget` as a Python integer if it has a path."""
    feasible = feasible_budgets(graph)
    if operator.index(budget) not in feasible:
        raise InfeasibleBudgetError(operator.index(budget), feasible)
    return operator.index(budget)
