"""TeaCache's rule (arXiv 2411.19108) on the engine's step cache; it looks at every step, so no list is known before.

The modulated input of the first block says how much the output will change. Its relative L1 change against the step
before, through a fitted polynomial, adds up; the blocks run when the sum reaches a threshold, and at the first and the
last step. In between the residual of the whole stack is reused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.rivals.calibration import modulated_input, relative_change
from benchmarks.rivals.rival import Rival, Start, begin_job
from lemica_backend.denoise import denoise
from lemica_backend.job import Job
from lemica_planner import Fill

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
RECOMMENDED = (0.1, 0.2)  # "slow" and "fast" in the authors' evaluation
_REUSE = Fill("residual")


class TeaRule:
    """The decision alone: changes in, "compute" or "reuse" out.

    Parameters
    ----------
    polynomial : sequence of float
        Coefficients, highest power first.
    threshold : float
        Sum of changes at which the blocks run; a higher one runs them more seldom.
    last : int
        The last step.
    """

    def __init__(self, polynomial: Sequence[float], threshold: float, last: int) -> None:
        self._rescale = np.poly1d(polynomial)
        self._threshold = threshold
        self._last = last
        self._sum = 0.0

    def computes(self, step: int, change: float) -> bool:
        """Say whether the blocks run at `step`, whose input changed by `change` since the step before."""
        self._sum += float(self._rescale(change))
        computes = step in (0, self._last) or self._sum >= self._threshold
        self._sum = 0.0 if computes else self._sum
        return computes


def tea_cache(polynomial: Sequence[float]) -> Iterator[Rival]:
    """Yield the rule at every threshold, with a polynomial that was fitted on this model."""
    for threshold in THRESHOLDS:
        run = partial(run_tea, polynomial=tuple(polynomial), threshold=threshold)
        recipe = f"{list(polynomial)} {threshold}"
        yield Rival("teacache", f"{threshold:g}", recipe, run, threshold in RECOMMENDED)


def run_tea(begin: Start, polynomial: Sequence[float], threshold: float) -> Tensor:
    """Denoise, asking the rule before every step."""
    rule = TeaRule(polynomial, threshold, begin.planned.num_inference_steps - 1)
    job = begin_job(begin, frozenset(), {0: _REUSE})
    before: Tensor | None = None
    while not job.is_finished:
        now = _look(begin, job)
        computes = rule.computes(job.step, 0.0 if before is None else relative_change(now, before))
        decided = frozenset({job.step}) if computes else frozenset[int]()
        job.planned = dataclasses.replace(job.planned, computed=decided, reuse={job.step: _REUSE})
        denoise(begin.model, [job])
        before = now
    return job.latents


@torch.inference_mode()
def _look(begin: Start, job: Job) -> Tensor:
    # both branches see the same latents at the same time, so one row is enough
    return modulated_input(begin.model, begin.model.stem(job.latents[None], job.timestep[None]))
