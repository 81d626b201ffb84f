"""Measure what a reused segment costs, with the very code that serves (implements `lemica_planner.Replayer`)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lemica_backend.config import ModelConfig, load_config
from lemica_backend.denoise import denoise
from lemica_backend.engine import open_model
from lemica_backend.errors import LemicaError, ModelLoadError
from lemica_backend.job import Job, start_job
from lemica_backend.models import VideoModel
from lemica_backend.planned import FULL, plan_request
from lemica_backend.types import GenerationRequest
from lemica_planner import CalibrationError, Provenance, Sample


class EngineReplayer:
    """Replays cached segments of a model's own trajectories.

    Parameters
    ----------
    model : VideoModel
    config : ModelConfig
        Its defaults are the parameters that the errors, and so the plans, are valid for.
    name : str
        The model's name in the repository.
    """

    def __init__(self, model: VideoModel, config: ModelConfig, name: str) -> None:
        self._model = model
        self._config = config
        self._name = name

    def provenance(self) -> Provenance:
        """Return what the measured errors depend on."""
        info, defaults = self._model.info, self._config.defaults
        return Provenance(
            model=self._name,
            weights_hash=info.weights_hash,
            scheduler=info.scheduler,
            scheduler_config=info.scheduler_config,
            num_inference_steps=defaults.num_inference_steps,
            guidance_scale=defaults.guidance_scale,
            num_frames=info.num_frames,
            height=info.height,
            width=info.width,
            operator="residual",
            metric="latents_l1",
        )

    def open(self, sample: Sample) -> EngineReplay:
        """Run the sample once without reuse, keeping every step's state."""
        request = GenerationRequest(sample.prompt, seed=sample.seed, budget=FULL)
        try:
            planned = plan_request(request, info=self._model.info, config=self._config, plan=None)
            with torch.inference_mode():
                job = start_job(self._model, planned)
        except LemicaError as error:
            raise CalibrationError(f"the sample {sample.prompt[:80]!r} cannot be generated: {error}") from error
        return EngineReplay(self._model, job)


class EngineReplay:
    """One sample's full trajectory, and the errors of its reused segments.

    Holds one latents tensor and one residual a branch for every step.
    """

    def __init__(self, model: VideoModel, job: Job) -> None:
        self._model = model
        self._after: list[Job] = []  # the state after each step
        while not job.is_finished:
            denoise(model, [job])
            self._after.append(_fork(job))
        self._reference: Tensor = job.latents

    def errors(self, edges: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
        """Return each edge's error: the final latents' mean absolute change (arXiv 2511.00090, equation 4).

        An edge (i, j) computes every step but i+1 .. j-1, which reuse step i. The replay starts from
        the stored state after step i; edges that meet at a step go on from there as rows of one batch.
        """
        jobs = [self._fork_edge(start, end) for start, end in edges]
        for step in range(min(job.step for job in jobs), len(self._after)):
            denoise(self._model, [job for job in jobs if job.step == step])
        return np.asarray([(job.latents - self._reference).abs().mean().item() for job in jobs])

    def _fork_edge(self, start: int, end: int) -> Job:
        job = _fork(self._after[start])
        computed = frozenset(range(end, len(self._after)))
        job.planned = dataclasses.replace(job.planned, computed=computed)
        return job

    def close(self) -> None:
        """Free the trajectory."""
        self._after.clear()


def _fork(job: Job) -> Job:
    """Return a job that goes on from the same state; tensors are shared, because no step writes into them."""
    return Job(job.planned, job.texts, job.latents, copy.deepcopy(job.scheduler), job.cache.copy(), job.step)


def _newest_version(model_dir: Path) -> Path:
    """Return the version folder that Triton serves by default: the one with the highest number."""
    versions = [path for path in model_dir.iterdir() if path.is_dir() and path.name.isdigit()]
    if not versions:
        raise ModelLoadError(f"{model_dir}: no version folder there, such as {model_dir}/1")
    return max(versions, key=lambda path: int(path.name))


def open_replayer(model_dir: Path) -> EngineReplayer:
    """Open the model folder (the one with ``config.pbtxt``) for calibration; its plan, if any, is ignored."""
    version = _newest_version(model_dir)
    config = load_config(version / "model.json")
    return EngineReplayer(open_model(version, config), config, model_dir.resolve().name)
