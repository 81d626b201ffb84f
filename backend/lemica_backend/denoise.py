"""One denoising step of several requests at once.

Rows decide, not batches: each (request, branch) is a row, and only rows of requests that compute
at their own step enter the block stack. Requests may be at different steps and follow different plans.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lemica_backend.job import Job
from lemica_backend.models.base import Stem, VideoModel
from lemica_backend.types import Branch


class _Row(NamedTuple):
    job: Job
    branch: Branch
    at: int  # of the job among the jobs of this tick


@torch.inference_mode()
def denoise(model: VideoModel, jobs: Sequence[Job]) -> None:
    """Take one step of every job; their latents, caches and steps move on.

    Nothing of any job changes before the model's part is done, so a failed call can be repeated.
    """
    started = time.perf_counter()
    outputs = _predict(model, jobs)
    for job, output in zip(jobs, outputs, strict=True):
        computed = job.computes
        job.latents = job.scheduler.step(output[None], job.timestep, job.latents[None], return_dict=False)[0][0]
        job.step += 1
        job.step_ms.append(((time.perf_counter() - started) * 1e3, computed))


def _predict(model: VideoModel, jobs: Sequence[Job]) -> list[Tensor]:
    """Return each job's guided model output, shape (C, F, h, w)."""
    stem = model.stem(torch.stack([job.latents for job in jobs]), torch.stack([job.timestep for job in jobs]))
    rows = [_Row(job, branch, index) for index, job in enumerate(jobs) for branch in job.texts]
    stem = stem.rows([row.at for row in rows])
    outputs = model.head(_run_stack(model, rows, stem), stem)
    split = outputs.split([len(job.texts) for job in jobs])
    return [_guide(output, job.planned.guidance_scale) for output, job in zip(split, jobs, strict=True)]


def _run_stack(model: VideoModel, rows: Sequence[_Row], stem: Stem) -> Tensor:
    """Return the hidden states after the block stack: computed, or the input plus the row's cached residual."""
    computing = [index for index, row in enumerate(rows) if row.job.computes]
    hidden = stem.hidden.clone()
    if computing:
        texts = [rows[index].job.texts[rows[index].branch] for index in computing]
        hidden[computing] = model.blocks(stem.rows(computing), texts)
    for index, row in enumerate(rows):
        if row.job.computes:
            row.job.cache.record(row.job.step, row.branch, hidden[index] - stem.hidden[index])
        else:
            hidden[index] += row.job.cache.predict(row.job.step, row.branch)
    return hidden


def _guide(output: Tensor, guidance_scale: float) -> Tensor:
    """Combine the branches (Ho and Salimans, 2022, equation 6): rows are uncond, cond, or cond alone."""
    if len(output) == 1:
        return output[0]
    uncond, cond = output.unbind()
    return uncond + guidance_scale * (cond - uncond)
