"""Fit the weights with which a skipped step forecasts its value from computed ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_weights"]

_DECIMALS = 4  # enough for 1e-4 of a value, and short in a plan
_RIDGE = 1e-7  # of the mean square: neighbouring steps are so alike that plain least squares is ill-posed
_SMALLEST = 1e-30  # where all values are 0, as the guidance of an empty prompt is, the weights are those of reuse


def fit_weights(gram: NDArray[np.float64], known: Sequence[int], step: int) -> tuple[float, ...]:
    """Return the weights of the values at the steps `known` that come closest to the value at `step`.

    Least squares over all elements of all calibration trajectories, from nothing but the products of their values:
    with G the matrix of products, the weights solve ``G[known, known] w = G[known, step]``. Reuse (0, ..., 0, 1) and
    every extrapolation are among the candidates, so on the calibration set none of them is better.

    Parameters
    ----------
    gram : ndarray, shape (T, T)
        Mean products of the values of every two steps.
    known : sequence of int
        Computed steps, ascending.
    step : int
        The skipped step.

    Examples
    --------
    >>> values = np.array([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])  # a straight line
    >>> fit_weights(values @ values.T, (0, 1), 2)
    (-1.0, 2.0)
    """
    among = gram[np.ix_(known, known)]
    size = max(np.trace(among) / len(known), _SMALLEST)
    ridge = _RIDGE * size * np.eye(len(known))
    prior = np.eye(len(known))[-1]  # pulls towards reuse of the last value where the data do not decide
    weights = prior + np.linalg.solve(among + ridge, gram[list(known), step] - among @ prior)
    return tuple(float(weight) + 0.0 for weight in np.round(weights, _DECIMALS))
