"""Measure what a sampler loses by bigger steps of its own: which timesteps it should take (no step is skipped here).

The fine trajectory runs once. A leap from one of its steps to a later one is a step of the very solver, on a schedule
that holds the step before, the leap's two ends and every step after. So a plan of leaps is a choice of timesteps, found
as any other plan is. Xue et al. (2024, arXiv 2402.17376) and Watson et al. (2021, arXiv 2106.03802) choose timesteps by
bounds of the solver's error, or by the training loss; here the final video is what counts.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lemica_backend.denoise import denoise
from lemica_backend.differences import final_difference, latents_difference
from lemica_backend.job import Job, keep_first
from lemica_backend.models import VideoModel
from lemica_backend.models.base import Scheduler
from lemica_backend.models.schedulers import takes_timesteps
from lemica_backend.step_cache import GUIDED, StepCache
from lemica_planner import CalibrationError, PlanEntry
from lemica_planner.replayer import OperatorFacts, Segment

__all__ = ["LEAP", "LeapSession", "leap_operators"]

LEAP = "leap"


def leap_operators(scheduler: Any) -> dict[str, OperatorFacts]:
    """Return the one operator of these replays; a solver of order 2 remembers the step before.

    Raises
    ------
    CalibrationError
        If the scheduler takes no timesteps.
    """
    if not takes_timesteps(scheduler):
        raise CalibrationError(
            f"{type(scheduler).__name__} takes no timesteps as it is set, so there are none to choose; use dpmsolver++ "
            "or euler, with a spacing of timesteps"
        )
    return {LEAP: OperatorFacts(min(1, scheduler.config.get("solver_order", 1) - 1))}


class LeapSession:
    """One sample's fine trajectory, and what leaps change; a `lemica_planner.ReplaySession`.

    Parameters
    ----------
    model : VideoModel
    job : Job
        At its first step, with a scheduler that takes timesteps.
    metric : str
        As for `lemica_backend.replay.EngineReplayer`.
    """

    def __init__(self, model: VideoModel, job: Job, metric: str) -> None:
        self._model, self._first = model, job
        self._on_the_way, self._at_the_end = latents_difference(metric), final_difference(metric, model)
        self._fresh = copy.deepcopy(job.scheduler)
        self._timesteps = [round(step) for step in job.scheduler.timesteps.tolist()]
        self._latents: list[Tensor] = [job.latents]  # before each step, and at the end
        self._outputs: list[Tensor] = []
        job.cache = StepCache(job.cache.times, ("output",))
        while not job.is_finished:
            denoise(model, [job])
            self._outputs.append(job.cache.latest()[GUIDED])
            self._latents.append(job.latents)

    def errors(self, segments: Sequence[Segment]) -> NDArray[np.float64]:
        """Return what each leap alone changes in the final latents."""
        return self._finish([self._leap(segment) for segment in segments])

    def drifts(self, segments: Sequence[Segment]) -> NDArray[np.float64]:
        """Return what each leap changes in the latents where it ends."""
        landed = ((self._leap(segment).latents, self._latents[segment.end]) for segment in segments)
        return np.asarray([self._on_the_way(latents, there) for latents, there in landed])

    def outcomes(self, paths: Sequence[PlanEntry]) -> NDArray[np.float64]:
        """Return what it changes to take the steps of each path only."""
        return self._finish([self._job(path.steps, self._latents[0], at=0) for path in paths])

    def grams(self) -> dict[str, NDArray[np.float64]]:
        """Return nothing: leaps have no weights."""
        return {}

    def close(self) -> None:
        """Free the trajectory."""
        self._latents.clear()
        self._outputs.clear()

    @torch.inference_mode()
    def _leap(self, segment: Segment) -> Job:
        """Return the job that has leapt, and is about to compute the segment's end."""
        taken = (*segment.history, segment.start)
        job = self._job((*taken, *range(segment.end, len(self._timesteps))), self._latents[0], at=len(taken))
        for place, step in enumerate(taken):
            timestep, output = job.scheduler.timesteps[place], self._outputs[step][None]
            latents = job.scheduler.step(output, timestep, self._latents[step][None], return_dict=False)[0][0]
            job.latents = keep_first(latents, job.kept)
        return job

    def _job(self, steps: Sequence[int], latents: Tensor, at: int) -> Job:
        """Return a job that takes these steps of the fine schedule only, and is at the given one of them."""
        scheduler = cast(Any, copy.deepcopy(self._fresh))
        device = scheduler.timesteps.device
        scheduler.set_timesteps(timesteps=[self._timesteps[step] for step in steps], device=device)
        computed = frozenset(range(len(steps)))
        planned = dataclasses.replace(self._first.planned, num_inference_steps=len(steps), computed=computed)
        cache, own = StepCache((), ()), cast(Scheduler, scheduler)
        return Job(planned, self._first.texts, latents, own, cache, at, kept=self._first.kept)

    def _finish(self, jobs: Sequence[Job]) -> NDArray[np.float64]:
        """Run the jobs to their ends, and return their differences from the fine trajectory's."""
        while waiting := [job for job in jobs if not job.is_finished]:
            denoise(self._model, waiting)
        return np.asarray([self._at_the_end(job.latents, self._latents[-1]) for job in jobs])
