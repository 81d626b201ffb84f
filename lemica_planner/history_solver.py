"""The minimax path where an edge's error also depends on the edge before it.

A forecast looks at the computed step before the last one, so the weight of an edge (i, j) depends on the gap g by
which i was reached. The nodes of the graph become pairs (step, gap), and the dynamic program of
`lemica_planner.solver` runs over these: with ``best(i, g, b)`` the best path of b nodes from step i, reached by gap g,

    best(i, g, b) = min over j > i of  w(g, i, j) + best(j, j - i, b - 1)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Suffixes", "shortest_with_history", "solve_with_history"]


def solve_with_history(weights: NDArray[np.float64]) -> dict[int, tuple[int, ...]]:
    """Return the steps of the lexicographically minimax path for every feasible budget.

    Parameters and cost as for `Suffixes`. Ties go to the smallest steps.
    """
    suffixes = Suffixes(weights)
    return {nodes: suffixes.path(0, 0, nodes) for nodes in suffixes.worst(0, 0)}


class Suffixes:
    """The lexicographically minimax way on from every (step, gap), for every number of nodes.

    Parameters
    ----------
    weights : ndarray, shape (L + 1, T, T)
        ``weights[g, i, j]``: error of the edge (i, j) when the computed step before i is i - g; g = 0 for the first
        step, which has none. ``inf`` where not allowed; L is the longest edge.

    Notes
    -----
    O(T**2 * L**2) candidates of O(T) numbers each: a tenth of a second at T = 50 and L = 10, once; a path takes O(T).
    """

    def __init__(self, weights: NDArray[np.float64]) -> None:
        table = _edge_table(weights)
        distinct = np.unique(table[np.isfinite(table)])
        forbidden = len(distinct)  # the rank of an edge that is not allowed: above all others
        ranks = np.searchsorted(distinct, table).astype(np.min_scalar_type(forbidden))
        steps, gaps, span = table.shape
        tails = np.full((steps + span, gaps, steps + 1), forbidden, ranks.dtype)
        tails[steps - 1, :, 1:] = 0  # the last step alone; column 0 is a sentinel
        self._choices = np.zeros((steps + 1, steps, gaps), np.intp)
        worst = np.full((steps + 1, steps, gaps), forbidden)
        worst[1, steps - 1] = 0
        for nodes in range(2, steps + 1):
            tails, self._choices[nodes] = _extended(tails, ranks, forbidden)
            worst[nodes] = tails[:steps, :, 1]
        self._worst: NDArray[np.float64] = np.append(distinct, np.inf)[worst]

    def worst(self, step: int, gap: int) -> dict[int, float]:
        """Return the largest error on the way to the last step, by the number of nodes it has, `step` included."""
        errors = self._worst[:, step, gap].tolist()
        return {nodes: error for nodes, error in enumerate(errors) if error < np.inf}

    def path(self, step: int, gap: int, nodes: int) -> tuple[int, ...]:
        """Return the `nodes` steps of one of these ways, `step` first."""
        return _path(self._choices, nodes, step, gap)


def shortest_with_history(weights: NDArray[np.float64]) -> dict[int, tuple[int, ...]]:
    """Return the steps of the path with the smallest sum of weights for every feasible budget.

    Parameters and ties as for `solve_with_history`; sums are rounded as floats are. Squared weights give the path whose
    errors are smallest if those of its segments are independent.
    """
    table = _edge_table(weights)
    steps, gaps, span = table.shape
    tails = np.full((steps + span, gaps), np.inf)
    tails[steps - 1] = 0
    choices = np.zeros((steps + 1, steps, gaps), np.intp)
    found: dict[int, tuple[int, ...]] = {}
    at = np.arange(steps)[:, None] + 1 + np.arange(span)
    for nodes in range(2, steps + 1):
        sums = table + tails[at, np.arange(1, span + 1)][:, None, :]
        choices[nodes] = sums.argmin(axis=2)
        tails[:steps] = sums.min(axis=2)
        if np.isfinite(tails[0, 0]):
            found[nodes] = _path(choices, nodes)
    return found


def _edge_table(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``table[i, g, s] = weights[g, i, i + 1 + s]``, ``inf`` beyond the last step."""
    gaps, steps, _ = weights.shape
    span = gaps - 1
    padded = np.full((gaps, steps, steps + span), np.inf)
    padded[:, :, :steps] = weights
    rows = np.arange(steps)[:, None]
    table: NDArray[np.float64] = padded[:, rows, rows + 1 + np.arange(span)].transpose(1, 0, 2)
    return table


def _extended(tails: NDArray[Any], ranks: NDArray[Any], forbidden: int) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the multisets of the best paths with one node more, and the span less 1 of each one's first edge.

    With x descending and x[-1] = infinity, inserting w gives ``max(x[k], min(x[k - 1], w))`` at place k.
    """
    steps, gaps, span = ranks.shape
    at = np.arange(steps)[:, None] + 1 + np.arange(span)
    after = tails[at, np.arange(1, span + 1)]  # (steps, span, width + 1): from step j, reached by the gap j - i
    shifted = np.minimum(after[:, None, :, :-1], ranks[..., None])
    candidates = np.maximum(shifted, after[:, None, :, 1:]).reshape(steps * gaps, span, -1)
    chosen = _smallest(candidates)
    longer = np.full_like(tails, forbidden)
    longer[:steps, :, 1:] = candidates[np.arange(steps * gaps), chosen].reshape(steps, gaps, -1)
    return longer, chosen.reshape(steps, gaps)


def _smallest(rows: NDArray[Any]) -> NDArray[np.intp]:
    """Return where, along the middle axis, the lexicographically smallest row is first found."""
    big_endian = np.ascontiguousarray(rows.astype(rows.dtype.newbyteorder(">")))
    keys = big_endian.view(f"S{rows.shape[-1] * rows.itemsize}")[..., 0]
    chosen: NDArray[np.intp] = keys.argmin(axis=1)
    return chosen


def _path(choices: NDArray[np.intp], nodes: int, step: int = 0, gap: int = 0) -> tuple[int, ...]:
    steps = [step]
    for left in range(nodes, 1, -1):
        gap = int(choices[left, steps[-1], gap]) + 1
        steps.append(steps[-1] + gap)
    return tuple(steps)
