"""Take denoising steps of several jobs so that a fault, or too little memory, stays with those that it concerns."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from lemica_backend.denoise import denoise
from lemica_backend.errors import GenerationError
from lemica_backend.job import Job
from lemica_backend.models.base import VideoModel
from lemica_backend.worker import Stepped

_CPU_MESSAGES = ("not enough memory", "can't allocate memory")  # of torch's allocator, in plain RuntimeErrors


def step_jobs(model: VideoModel, jobs: Mapping[int, Job], most: int = 1) -> Stepped:
    """Take one step of every job after the other, at most so many; those that fail are told by their number.

    A forward that fails is repeated with half of its jobs at a time, down to single ones, and after such a step none is
    taken. Latents that are not finite at the end are a failure of their job: NaN stays, and infinity becomes it.
    """
    started, taken = time.perf_counter(), 0
    attempt = _Attempt(model)
    while taken < most and not (attempt.failures or attempt.is_split):
        attempt.run(dict(jobs))
        taken += 1
    moved = {number: job for number, job in jobs.items() if number not in attempt.failures}
    failures = attempt.failures | _not_finite(moved)  # waits for the device, too
    return Stepped(
        seconds=time.perf_counter() - started,
        cached_bytes={number: job.cache.nbytes for number, job in jobs.items()},
        failures=failures,
        taken=taken,
        is_split=attempt.is_split,
        too_many_rows=attempt.too_many_rows,
    )


@dataclass
class _Attempt:
    """One step of all, in as many parts as it takes."""

    model: VideoModel
    failures: dict[int, Exception] = field(default_factory=dict)
    is_split: bool = False
    too_many_rows: int | None = None

    def run(self, jobs: dict[int, Job]) -> None:
        """Let every job take its step or be among the failures."""
        left = jobs
        if not self._is_known_too_large(jobs):
            steps = {number: job.step for number, job in jobs.items()}
            error = self._try(jobs)
            if error is None:
                return
            left = {number: job for number, job in jobs.items() if job.step == steps[number]}
            if len(jobs) == 1:
                self.failures |= dict.fromkeys(left, error)
                return
        self.is_split = True
        numbers = list(left)
        middle = (len(numbers) + 1) // 2
        for half in (numbers[:middle], numbers[middle:]):
            if half:
                self.run({number: left[number] for number in half})

    def _is_known_too_large(self, jobs: Mapping[int, Job]) -> bool:
        return len(jobs) > 1 and self.too_many_rows is not None and _rows(jobs) >= self.too_many_rows

    def _try(self, jobs: Mapping[int, Job]) -> Exception | None:
        try:
            denoise(self.model, list(jobs.values()))
        except Exception as error:  # any fault of a forward; found again with fewer jobs
            if not is_out_of_memory(error):
                return error
            failed = error.with_traceback(None)  # its frames hold tensors
        else:
            return None
        free_memory()
        if len(jobs) > 1:
            rows = _rows(jobs)
            self.too_many_rows = min(rows, self.too_many_rows or rows)
        return failed


def _rows(jobs: Mapping[int, Job]) -> int:
    return sum(len(job.texts) for job in jobs.values())


def is_out_of_memory(error: Exception) -> bool:
    """Whether less work at a time could have done it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_MESSAGES)


def free_memory() -> None:
    """Give back what nobody uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _not_finite(jobs: Mapping[int, Job]) -> dict[int, Exception]:
    if not jobs:
        return {}
    sums = torch.stack([job.latents.sum(dtype=torch.float32) for job in jobs.values()])  # faster than each number
    is_finite = torch.isfinite(sums).tolist()
    return {
        number: GenerationError(
            f"the latents are not finite (NaN or infinity) after step {job.step - 1}; "
            "try another seed or guidance_scale"
        )
        for (number, job), fine in zip(jobs.items(), is_finite, strict=True)
        if not fine
    }
