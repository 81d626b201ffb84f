"""Estimate an edge's error from what it changes on arrival: w = g d.

The drift d of a segment is what it changes in the latents that enter its end step, and needs no forward. The computed
steps from there on multiply it by a gain g that depends on the end step above all. So a few replays, spread over the
steps, tell the gains of all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["estimate_errors"]

_SMALLEST = 1e-12


def estimate_errors(
    drifts: NDArray[np.float64], errors: NDArray[np.float64], ends: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return each segment's error: measured where it was, else drift times gain.

    Parameters
    ----------
    drifts, errors : ndarray, shape (samples, N)
        NaN in `errors` where nothing was measured; each sample needs one measured error at least.
    ends : ndarray of int, shape (N,)
        The end step of each segment.

    Returns
    -------
    ndarray, shape (samples, N)
        A gain is the geometric mean of error over drift among the measured segments that end there, and lies on a
        straight line, in logarithms, between the nearest steps where something was measured.
    """
    return np.stack([_estimate(*row, ends) for row in zip(drifts, errors, strict=True)])


def _estimate(drifts: NDArray[np.float64], errors: NDArray[np.float64], ends: NDArray[np.intp]) -> NDArray[np.float64]:
    measured = np.isfinite(errors)
    logs = np.log(np.maximum(errors[measured], _SMALLEST) / np.maximum(drifts[measured], _SMALLEST))
    known, place = np.unique(ends[measured], return_inverse=True)
    means = np.bincount(place, logs) / np.bincount(place)
    gains = np.exp(np.interp(ends, known, means))
    return np.where(measured, errors, gains * drifts)
