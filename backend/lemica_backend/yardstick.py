"""Make one sample's video in different ways, and say how far each is from a few references."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lemica_backend.config import ModelConfig, SchedulerConfig
from lemica_backend.denoise import denoise
from lemica_backend.job import Job, start_job
from lemica_backend.models import VideoModel, resample
from lemica_backend.planned import PlannedRequest, plan_request
from lemica_backend.sample_request import request_of
from lemica_planner import Sample
from lemica_planner.atomic import atomic_write
from lemica_planner.samplers import OWN, Sampler, Way

__all__ = ["MEASURES", "EngineYardstick", "Judges", "Video", "with_sampler", "with_steps"]


class Video(NamedTuple):
    """A finished video: frames (F, height, width, 3), latents (C, F, h, w)."""

    frames: NDArray[np.uint8]
    latents: NDArray[np.float32]


def _latents_l1(video: Video, reference: Video) -> float:
    return float(np.abs(video.latents - reference.latents).mean())


def _psnr_db(video: Video, reference: Video) -> float:
    """Return the peak signal-to-noise ratio over all frames; 100 for equal ones."""
    difference = (video.frames.astype(np.float64) - reference.frames) / 255
    return min(100.0, -10 * math.log10(max(float(np.square(difference).mean()), 1e-10)))


MEASURES = {"latents_l1": _latents_l1, "psnr_db": _psnr_db}


class Judges(NamedTuple):
    """What is measured.

    Attributes
    ----------
    pairs : mapping of str to callable
        ``(video, reference)`` to a number.
    alone : mapping of str to callable
        ``(video, prompt)`` to a number; reported as the reference ``prompt``.
    """

    pairs: Mapping[str, Callable[[Video, Video], float]] = MEASURES
    alone: Mapping[str, Callable[[Video, str], float]] = {}


def with_sampler(model: VideoModel, sampler: Sampler) -> VideoModel:
    """Return the model with that sampler; raises `lemica_backend.errors.ModelLoadError`."""
    if sampler.name == OWN.name:
        return model
    given = {"class": sampler.scheduler, "timesteps": sampler.timesteps, **sampler.parameters}
    return resample(model, SchedulerConfig.model_validate(given))


def with_steps(config: ModelConfig, num_steps: int) -> ModelConfig:
    """Return the configuration with another default number of steps."""
    defaults = config.defaults.model_copy(update={"num_inference_steps": num_steps})
    return config.model_copy(update={"defaults": defaults})


class EngineYardstick:
    """One sample's references, ready to be compared with.

    Parameters
    ----------
    model : VideoModel
    config : ModelConfig
    sample : Sample
    references : mapping of str to Way
    judges : Judges
    keep : Path or None
        A folder where the latents of references stay, so that a later run need not make them again.
    """

    def __init__(
        self,
        model: VideoModel,
        config: ModelConfig,
        sample: Sample,
        references: Mapping[str, Way],
        *,
        judges: Judges,
        keep: Path | None = None,
    ) -> None:
        self._model, self._config, self._sample, self._judges, self._keep = model, config, sample, judges, keep
        self._references = {name: self._reference(way) for name, way in references.items()}

    def measure(self, way: Way) -> dict[str, dict[str, float]]:
        """Make the video that way, and return by reference and measure how far it is from there.

        ``run`` and ``time_in_forwards`` is the time of all steps, in computed ones: skipped steps are not free.
        """
        job, video = self._make(way)
        measured = {
            name: {measure: judge(video, reference) for measure, judge in self._judges.pairs.items()}
            for name, reference in self._references.items()
        }
        alone = {measure: judge(video, self._sample.prompt) for measure, judge in self._judges.alone.items()}
        return measured | ({"prompt": alone} if alone else {}) | {"run": {"time_in_forwards": _time_in_forwards(job)}}

    def _reference(self, way: Way) -> Video:
        if self._keep is None:
            return self._make(way)[1]
        path = self._keep / f"{self._name(way)}.npy"
        if not path.exists():
            with atomic_write(path) as file:
                np.save(file, self._make(way)[1].latents)
        latents = np.load(path)
        return Video(self._model.decode(torch.from_numpy(latents), self._sample.seed), latents)

    def _name(self, way: Way) -> str:
        """Return what decides the reference's latents, as the name of a file."""
        info, guidance = self._model.info, self._config.defaults.guidance_scale
        own = [info.weights_hash, info.scheduler, info.scheduler_config, guidance]
        known = json.dumps([own, way.to_dict(), self._sample.to_list()], sort_keys=True, default=str)
        return hashlib.sha256(known.encode()).hexdigest()[:16]

    @torch.inference_mode()
    def _make(self, way: Way) -> tuple[Job, Video]:
        model = with_sampler(self._model, way.sampler)
        job = start_job(model, self._planned(way, model))
        while not job.is_finished:
            denoise(model, [job])
        return job, Video(model.decode(job.latents, job.planned.seed), job.latents.float().cpu().numpy())

    def _planned(self, way: Way, model: VideoModel) -> PlannedRequest:
        request = request_of(self._sample, self._config.limits)
        config = with_steps(self._config, way.num_steps)
        planned = plan_request(request, info=model.info, config=config, plan=None)
        if way.entry is None:
            return planned
        reuse = way.entry.reuse("residual")
        return dataclasses.replace(planned, computed=frozenset(way.entry.steps), reuse=reuse)


def _time_in_forwards(job: Job) -> float:
    """Return the time of all steps, in the median of the computed ones; steps that compute count as one each."""
    computed = median(ms for ms, computes in job.step_ms if computes)
    skipped = sum(ms for ms, computes in job.step_ms if not computes)
    return len(job.planned.computed) + skipped / computed
