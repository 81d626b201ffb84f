"""Whole-request batches: what Triton's dynamic batching gives runs from the first step to the last.

This is how Triton's own diffusion tutorial serves. Models, plans, step cache and decoding are this repository's, so
that only the scheduling differs from the engine's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from lemica_backend.config import ModelConfig
from lemica_backend.denoise import denoise
from lemica_backend.job import Job, start_job
from lemica_backend.models import VideoModel
from lemica_backend.planned import PlannedRequest, plan_request
from lemica_backend.types import GenerationRequest, GenerationResult
from lemica_planner import CachePlan


class WholeBatches:
    """Runs batches of requests, each to its end.

    Requests of a batch step together, in one of two ways. A pipeline with a cache in it keeps one value for the whole
    batch, which thus follows one plan: that of its largest budget, or some request would get less than it asked for.
    With this repository's step cache each request can follow its own plan, and the batch ends for all with the last.

    Parameters
    ----------
    model : VideoModel
    config : ModelConfig
    plan : CachePlan or None
    one_plan : bool
        Whether a batch follows one plan.
    """

    def __init__(self, model: VideoModel, config: ModelConfig, plan: CachePlan | None, *, one_plan: bool) -> None:
        self._model = model
        self._config = config
        self._plan = plan
        self._one_plan = one_plan

    def planned(self, request: GenerationRequest) -> PlannedRequest:
        """Return what will run; raises `InvalidRequestError`."""
        return plan_request(request, info=self._model.info, config=self._config, plan=self._plan)

    def run(self, batch: Sequence[PlannedRequest]) -> list[GenerationResult]:
        """Return what a batch makes, in its order, once all of it is finished."""
        with torch.inference_mode():
            jobs = [start_job(self._model, planned) for planned in self._as_they_run(batch)]
            while running := [job for job in jobs if not job.is_finished]:
                denoise(self._model, running)
            return [self._result(job) for job in jobs]

    def _as_they_run(self, batch: Sequence[PlannedRequest]) -> Sequence[PlannedRequest]:
        if not self._one_plan or not batch:
            return batch
        largest = max(batch, key=lambda planned: len(planned.computed))
        return [dataclasses.replace(each, computed=largest.computed, reuse=largest.reuse) for each in batch]

    def _result(self, job: Job) -> GenerationResult:
        frames = self._model.decode(job.latents)
        info = {"computed_steps": sorted(job.planned.computed)}
        return GenerationResult(frames, job.latents.float().cpu().numpy(), info)
