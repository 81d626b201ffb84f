"""Drift of quality: compute some of the served requests in full, too, in idle time, and compare the frames."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemica_backend.courses import full_course
from lemica_backend.planned import PlannedRequest
from lemica_backend.watch import Drifted, Watcher, tell

PSNR_CAP_DB = 100.0  # of frames that are the same; their ratio is infinite, which no mean survives
_MOST_KEPT = 2  # requests with their frames
_log = logging.getLogger(__name__)

Frames = NDArray[np.uint8]
Idle = Callable[[], bool]
Compute = Callable[[PlannedRequest, Idle], Frames | None]  # None where it was not idle before a step


class _Served(NamedTuple):
    planned: PlannedRequest
    frames: Frames


class DriftChecks:
    """Keeps a share of the cached requests, and computes them in full when it is let.

    Only the engine's thread uses it. Answers are out before anything is kept, so nothing here can change one.

    Parameters
    ----------
    compute : callable
        Runs a request as it is planned and returns its frames; see `lemica_backend.full_run.run_while_idle`.
    share : float
        Of the requests that skipped a step, 0 to 1: with 0.25, every fourth one.
    watcher : Watcher
        Is told of every request that was kept: measured, dropped or failed.
    """

    def __init__(self, compute: Compute, share: float, watcher: Watcher) -> None:
        self._compute = compute
        self._share = share
        self._watcher = watcher
        self._due = 0.0
        self._kept: deque[_Served] = deque()

    def offer(self, planned: PlannedRequest, frames: Frames) -> None:
        """Keep a served request, if it skipped a step and its share is due; the oldest one goes if there are too many.

        Parameters
        ----------
        planned : PlannedRequest
            On the course that it took.
        frames : ndarray of uint8, shape (frames, height, width, 3)
        """
        if len(planned.computed) == planned.num_inference_steps:
            return
        self._due += self._share
        if self._due >= 1:
            self._due -= 1
            self._kept.append(_Served(planned, frames))
        if len(self._kept) > _MOST_KEPT:
            self._tell(Drifted("dropped", self._kept.popleft().planned.budget))

    def run(self, *, while_idle: Idle) -> None:
        """Check what was kept, the newest first, until nothing is left or `while_idle` is false.

        That is asked before each step. What is under way then is dropped: it would hold memory, and be in the way.
        """
        while self._kept and while_idle():
            served = self._kept.pop()
            try:
                drifted = self._check(served, while_idle)
            except Exception:  # of a full computation, and of nobody's request
                _log.warning("a request could not be computed in full to compare", exc_info=True)
                drifted = Drifted("failed", served.planned.budget)
            self._tell(drifted)

    def _check(self, served: _Served, while_idle: Idle) -> Drifted:
        planned, frames = served
        reference = self._compute(_in_full(planned), while_idle)
        if reference is None:
            return Drifted("dropped", planned.budget)
        distance = _lpips(frames, reference) if while_idle() else None
        return Drifted("measured", planned.budget, psnr_db(frames, reference), distance)

    def _tell(self, drifted: Drifted) -> None:
        tell(self._watcher, drifted)


def psnr_db(frames: Frames, reference: Frames) -> float:
    """Return the mean over frames of the peak signal-to-noise ratio in dB, each frame at most `PSNR_CAP_DB`.

    Examples
    --------
    >>> black = np.zeros((1, 8, 8, 3), np.uint8)
    >>> psnr_db(black, black), round(psnr_db(black, black + np.uint8(1)), 2)
    (100.0, 48.13)
    """
    difference = frames.astype(np.float32) - reference.astype(np.float32)
    squared_error = np.maximum((difference**2).mean(axis=(1, 2, 3)), 1e-12)
    return float(np.minimum(10 * np.log10(255**2 / squared_error), PSNR_CAP_DB).mean())


def _lpips(frames: Frames, reference: Frames) -> float | None:
    """Return the perceptual distance; None where its weights are not on this machine."""
    from lemica_backend.perceptual import lpips, weights_path  # noqa: PLC0415 - loads torch

    return lpips(frames, reference, weights) if (weights := weights_path()).is_file() else None


def _in_full(planned: PlannedRequest) -> PlannedRequest:
    course = full_course(planned.num_inference_steps)
    return dataclasses.replace(planned.on(course), courses=(course,), other_operators=frozenset())
