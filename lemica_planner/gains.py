"""Estimate an edge's error from what it changes on arrival: w = g d.

The drift d of a segment is what it changes in the latents that enter its end step, and needs no forward. The computed
steps from there on multiply it by a gain g. Segments that begin or end near each other have like gains, so a few
replays tell the gains of all, and how far to trust them: the logarithm of the gain is a Gaussian process over (start,
end), conditioned on what was measured (kriging).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemica_planner.replayer import Segment

__all__ = ["Estimates", "GainModel"]

_SMALLEST = 1e-12
_NOISE = 0.02
# Fitted on the naive graph of the embedded model, in steps of a trajectory of 50: a slow part over the end steps, and
# a part that is alike for segments with near starts and ends.
_SLOW, _SLOW_STEPS = 0.3, 20
_NEAR, _NEAR_END_STEPS, _NEAR_START_STEPS = 0.2, 6, 2
_TRAJECTORY = 50


class Estimates(NamedTuple):
    """What is known of the errors of N segments.

    Attributes
    ----------
    errors : ndarray, shape (samples, N)
        Measured, or estimated.
    deviations : ndarray, shape (N,)
        Standard deviation of the logarithm of an estimated error; 0 where it is measured.
    """

    errors: NDArray[np.float64]
    deviations: NDArray[np.float64]


class GainModel:
    """Estimates the errors of segments.

    Parameters
    ----------
    segments : sequence of Segment
        N of them.
    num_steps : int
        Steps T.
    drifts : ndarray, shape (samples, N)
    """

    def __init__(self, segments: Sequence[Segment], num_steps: int, drifts: NDArray[np.float64]) -> None:
        self._drifts = np.maximum(drifts, _SMALLEST)
        places = np.array([(segment.start, segment.end) for segment in segments], np.float64)
        self._places = places * _TRAJECTORY / num_steps

    def estimate(self, errors: NDArray[np.float64]) -> Estimates:
        """Return every segment's error: measured where it was, else drift times gain.

        Parameters
        ----------
        errors : ndarray, shape (samples, N)
            NaN where nothing was measured; a segment counts as measured if it is on every sample. At least one is.
        """
        measured = np.flatnonzero(np.isfinite(errors).all(axis=0))
        among = self._covariance(measured, measured) + _NOISE**2 * np.eye(len(measured))
        towards = self._covariance(np.arange(len(self._places)), measured)
        solved = np.linalg.solve(among, towards.T)
        gains = np.log(np.maximum(errors[:, measured], _SMALLEST) / self._drifts[:, measured])
        means = gains.mean(axis=1, keepdims=True)
        estimates = self._drifts * np.exp(means + (gains - means) @ solved)
        variances = _SLOW**2 + _NEAR**2 - (towards * solved.T).sum(axis=1)
        deviations = np.sqrt(np.maximum(variances, 0))
        deviations[measured] = 0
        return Estimates(np.where(np.isfinite(errors), errors, estimates), deviations)

    def _covariance(self, left: NDArray[np.intp], right: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the covariance of log gains, shape (left, right)."""
        starts, ends = np.abs(self._places[left][:, None] - self._places[right][None]).transpose(2, 0, 1)
        near = np.exp(-ends / _NEAR_END_STEPS - starts / _NEAR_START_STEPS)
        covariance: NDArray[np.float64] = _SLOW**2 * np.exp(-ends / _SLOW_STEPS) + _NEAR**2 * near
        return covariance
