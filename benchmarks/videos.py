"""Make videos with any steps, in process, with the serving engine's own code, and compare them with the full one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.models import OpenModel
from demo.metrics import Quality, compare
from lemica_backend.denoise import denoise
from lemica_backend.job import Job, start_job
from lemica_backend.models import VideoModel
from lemica_backend.planned import FULL, PlannedRequest, plan_request
from lemica_backend.types import GenerationRequest
from lemica_planner import PlanEntry, Sample

__all__ = ["FIRST_SEED", "Outcome", "Video", "compare_videos", "full_entry", "make_videos"]

FIRST_SEED = 500_000  # of the first held-out prompt; each further prompt takes the next number


class Video(NamedTuple):
    """Frames of shape (frames, height, width, 3), and the final latents."""

    frames: NDArray[np.uint8]
    latents: NDArray[np.float32]


class Outcome(NamedTuple):
    """One video against the full one; `latents_l1` is the mean absolute difference of the final latents."""

    quality: Quality
    latents_l1: float

    def scores(self) -> dict[str, float]:
        """Return every measure by its name in result files."""
        lpips, ssim, psnr = self.quality.lpips, self.quality.ssim, self.quality.psnr
        return {"lpips": lpips, "ssim": ssim, "psnr_db": psnr, "latents_l1": self.latents_l1}


def full_entry(num_steps: int) -> PlanEntry:
    """Return the entry that computes every step."""
    return PlanEntry(tuple(range(num_steps)))


def make_videos(opened: OpenModel, entries: Sequence[PlanEntry], sample: Sample) -> list[Video]:
    """Generate a sample with the steps of every entry, all of them as rows of the same ticks.

    An entry that names no operator reuses the residual, as in the paper.
    """
    request = GenerationRequest(sample.prompt, seed=sample.seed, budget=FULL)
    planned = plan_request(request, info=opened.model.info, config=opened.config, plan=None)
    with torch.inference_mode():
        jobs = [start_job(opened.model, _follow(planned, entry)) for entry in entries]
        for _ in range(planned.num_inference_steps):
            denoise(opened.model, jobs)
        return [_decode(opened.model, job) for job in jobs]


def compare_videos(video: Video, full: Video) -> Outcome:
    """Measure a video against the full one of the same sample."""
    return Outcome(compare(video.frames, full.frames), float(np.abs(video.latents - full.latents).mean()))


def _follow(planned: PlannedRequest, entry: PlanEntry) -> PlannedRequest:
    return dataclasses.replace(planned, computed=frozenset(entry.steps), reuse=entry.reuse("residual"))


def _decode(model: VideoModel, job: Job) -> Video:
    return Video(model.decode(job.latents, job.planned.seed), job.latents.float().cpu().numpy())
