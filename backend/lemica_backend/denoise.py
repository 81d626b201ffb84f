"""One denoising step of several requests at once.

Rows decide, not batches: each (request, branch) is a row, and only rows of requests that compute
at their own step enter the block stack. Requests may be at different steps and follow different plans.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor

from lemica_backend.job import Job, keep_first
from lemica_backend.models.base import Scheduler, Stem, Text, VideoModel
from lemica_backend.noise import to_noise, to_output
from lemica_backend.operators import OPERATORS
from lemica_backend.step_cache import GUIDED, NOISE, StepCache
from lemica_backend.threads import threads_for, using_threads
from lemica_backend.types import Branch


class _Row(NamedTuple):
    job: Job
    branch: Branch

    @property
    def text(self) -> Text:
        return self.job.texts[self.branch]


class _Made(NamedTuple):
    """What the model made of one job: the guided output, and each branch before and after the block stack."""

    output: Tensor
    before: Tensor
    after: Tensor


@torch.inference_mode()
def denoise(model: VideoModel, jobs: Sequence[Job]) -> None:
    """Take one step of every job; their latents, caches and steps move on.

    The model's part changes no job, and then one job changes after the other, each as a whole: its cache and its
    sampler, too, are as they were where its step fails. So after an error, each job whose step did not move can take
    it again.
    """
    started = time.perf_counter()
    made = iter(_run_model(model, [job for job in jobs if job.enters_model]))
    for job in jobs:
        if job.enters_model:
            _take_made(job, next(made))
        else:
            job.latents = _step(job, _predict_output(job))
        job.step_ms.append(((time.perf_counter() - started) * 1e3, job.computes))
        job.step += 1


def _take_made(job: Job, made: _Made) -> None:
    cache = _recorded(job, made) if job.computes else job.cache  # takes memory, and so comes before the sampler moves
    job.latents, job.cache = _step(job, made.output), cache


def _recorded(job: Job, made: _Made) -> StepCache:
    """Return what becomes of the job's cache, which stays as it is."""
    cache = job.cache.copy()
    if cache.keeps("output"):
        cache.record(job.step, GUIDED, made.output.clone())  # a view would hold the outputs of all rows
    if cache.keeps("noise"):
        cache.record(job.step, NOISE, to_noise(job.scheduler, cache.times[job.step], job.latents, made.output))
    if cache.keeps("residual"):
        for branch, residual in zip(job.texts, made.after - made.before, strict=True):
            cache.record(job.step, branch, residual)
    return cache


def _predict_output(job: Job) -> Tensor:
    """Return what stands in for the guided output where the model does not run."""
    if OPERATORS[job.fill.operator].source == "output":
        output: Tensor = job.cache.predict(job.step, GUIDED, job.fill)
        return output
    noise = job.cache.predict(job.step, NOISE, job.fill)
    return to_output(job.scheduler, job.cache.times[job.step], job.latents, noise)


def _run_model(model: VideoModel, jobs: Sequence[Job]) -> list[_Made]:
    """Run stem and head for every job, and the block stack for those that compute."""
    if not jobs:
        return []
    rows = [_Row(job, branch) for job in jobs for branch in job.texts]
    all_threads = torch.get_num_threads()
    with using_threads(threads_for([row.job.latents for row in rows])):
        stem = _run_stem(model, jobs, rows)
        hidden = _run_stack(model, rows, stem, all_threads)
        output = model.head(hidden, stem)
    branches = [len(job.texts) for job in jobs]
    parts = (tensor.split(branches) for tensor in (output, stem.hidden, hidden))
    return [
        _Made(_guide(model, job, output), before, after)
        for job, output, before, after in zip(jobs, *parts, strict=True)
    ]


def _run_stem(model: VideoModel, jobs: Sequence[Job], rows: Sequence[_Row]) -> Stem:
    """Embed every row; where no text enters, one row of each request, for all of its branches."""
    if model.info.stem_sees_text:
        return _embed(model, rows)
    stem = _embed(model, [_Row(job, next(iter(job.texts))) for job in jobs])
    counts = [len(job.texts) for job in jobs]
    if len(set(counts)) == 1:
        return stem.repeated(counts[0])
    return stem.rows([index for index, count in enumerate(counts) for _ in range(count)])


def _embed(model: VideoModel, rows: Sequence[_Row]) -> Stem:
    latents, timesteps = (torch.stack([getattr(row.job, name) for row in rows]) for name in ("model_input", "timestep"))
    return model.stem(latents, timesteps, [row.text for row in rows])


def _guide(model: VideoModel, job: Job, outputs: Tensor) -> Tensor:
    planned = job.planned
    return model.guide(outputs, planned.guidance_scale, job.timestep, planned.num_inference_steps)


def _step(job: Job, output: Tensor) -> Tensor:
    with _unchanged_by_errors(job.scheduler):
        latents = job.scheduler.step(output[None], job.timestep, job.latents[None], return_dict=False)[0][0]
        return keep_first(latents.to(job.latents.dtype), job.kept)  # some samplers compute in float32


@contextmanager
def _unchanged_by_errors(scheduler: Scheduler) -> Iterator[None]:
    """Put a sampler back where it was if the body fails: most count their steps, and some keep a history."""
    before = {name: copy(value) if isinstance(value, list) else value for name, value in vars(scheduler).items()}
    try:
        yield
    except BaseException:
        vars(scheduler).clear()
        vars(scheduler).update(before)
        raise


def _run_stack(model: VideoModel, rows: Sequence[_Row], stem: Stem, threads: int) -> Tensor:
    """Return the hidden states after the block stack: computed, or the input plus the row's cached residual.

    Where none is computed, they are made in the stem's own tokens, which nobody reads afterwards.
    """
    computing = [index for index, row in enumerate(rows) if row.job.computes]
    if len(computing) == len(rows):
        with using_threads(threads):
            return model.blocks(stem, [row.text for row in rows])
    hidden = stem.hidden
    if computing:
        hidden = hidden.clone()
        with using_threads(threads):
            hidden[computing] = model.blocks(stem.rows(computing), [rows[index].text for index in computing])
    _add_residuals(hidden, rows)
    return hidden


def _add_residuals(hidden: Tensor, rows: Sequence[_Row]) -> None:
    for index, (job, branch) in enumerate(rows):
        if not job.computes:
            for value, weight in job.cache.terms(job.step, branch, job.fill):
                hidden[index].add_(value, alpha=weight)
