"""The best paths when some errors are measured and others only estimated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemica_planner.candidates import Candidates
from lemica_planner.history_solver import solve_with_history

__all__ = ["BestPath", "best_paths"]


class BestPath(NamedTuple):
    """A path for one budget.

    Attributes
    ----------
    steps : tuple of int
    segments : tuple of int
        Of its edges that skip steps, numbers in ``Candidates.segments``.
    is_certain : bool
        Whether every one of them is measured.
    """

    steps: tuple[int, ...]
    segments: tuple[int, ...]
    is_certain: bool


def best_paths(
    candidates: Candidates, weights: NDArray[np.float64], measured: NDArray[np.bool_], tolerance: float
) -> dict[int, BestPath]:
    """Return a minimax path for every feasible budget.

    It is the best path by all weights if that is measured; else the best measured path if its worst edge is at most
    ``1 + tolerance`` times that of the best path; else the best path.

    Parameters
    ----------
    weights : ndarray, shape (N,)
        Of each segment, measured or estimated.
    measured : ndarray of bool, shape (N,)
    tolerance : float
        0 settles for nothing but the best path itself, down to its smallest error.
    """
    known = np.where(measured, weights, np.inf)
    sure = solve_with_history(candidates.weights(known))
    found = {}
    for budget, steps in solve_with_history(candidates.weights(weights)).items():
        segments = tuple(candidates.on_path(steps, weights))
        best = BestPath(steps, segments, bool(measured[list(segments)].all()))
        found[budget] = best
        if not best.is_certain and tolerance and budget in sure:
            near = tuple(candidates.on_path(sure[budget], known))
            if _worst(weights, near) <= (1 + tolerance) * _worst(weights, segments):
                found[budget] = BestPath(sure[budget], near, is_certain=True)
    return found


def _worst(weights: NDArray[np.float64], segments: tuple[int, ...]) -> float:
    return float(weights[list(segments)].max(initial=0))
