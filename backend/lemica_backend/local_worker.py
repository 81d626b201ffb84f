"""A worker that runs the model in this process, in whatever thread calls it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lemica_backend.blocks.engine_stack import take_fallbacks
from lemica_backend.job import Job, start_job
from lemica_backend.models.base import VideoModel
from lemica_backend.planned import PlannedRequest
from lemica_backend.stepping import free_memory, is_out_of_memory, step_jobs
from lemica_backend.worker import Decoded, Facts, Started, Stepped

_PREVIEW_WIDTH = 128  # pixels
T = TypeVar("T")


class LocalWorker:
    """See `lemica_backend.worker.Worker`.

    Parameters
    ----------
    model : VideoModel
    facts : Facts
    """

    is_lost = False

    def __init__(self, model: VideoModel, facts: Facts) -> None:
        self.facts = facts
        self._model = model
        self._jobs: dict[int, Job] = {}

    def start(self, number: int, planned: PlannedRequest) -> Started:
        """Encode the text and draw the noise."""
        began = time.perf_counter()
        job = _with_memory(lambda: start_job(self._model, planned))
        self._jobs[number] = job
        return Started(len(job.texts), time.perf_counter() - began)

    def step(self, numbers: Sequence[int], most: int = 1) -> Stepped:
        """Take so many denoising steps of these requests, fewer where one fails."""
        stepped = step_jobs(self._model, {number: self._jobs[number] for number in numbers}, most)
        return stepped._replace(fallbacks=tuple(take_fallbacks(self._model).items()))

    def replan(self, number: int, planned: PlannedRequest) -> None:
        """Let a request go on as this one says."""
        self._jobs[number].planned = planned

    def decode(self, number: int) -> Decoded:
        """Decode the latents of a request that has taken all its steps."""
        began, job = time.perf_counter(), self._jobs[number]
        frames = self._frames(job)
        latents = job.latents.float().cpu().numpy()
        miss = job.cache.forecast_miss()
        return Decoded(frames, latents, tuple(job.step_ms), miss, time.perf_counter() - began)

    def preview(self, number: int) -> NDArray[np.uint8]:
        """Return the middle frame of the latents as they are."""
        frames = self._frames(self._jobs[number])
        return _shrunk(frames[len(frames) // 2])

    def drop(self, number: int) -> None:
        """Forget a request."""
        job = self._jobs.pop(number, None)
        if job:
            job.cache.clear()

    def close(self) -> None:
        """Forget all of them."""
        for number in list(self._jobs):
            self.drop(number)

    def _frames(self, job: Job) -> NDArray[np.uint8]:
        return _with_memory(lambda: self._model.decode(job.latents, job.planned.seed))


class LocalSource:
    """Makes workers on a model that is loaded already.

    Parameters
    ----------
    model : VideoModel
    facts : Facts
    """

    device = "this process"

    def __init__(self, model: VideoModel, facts: Facts) -> None:
        self._model = model
        self._facts = facts

    def open(self, on_end: Callable[[], None], *, measures: bool) -> LocalWorker:
        """Return a worker without requests."""
        return LocalWorker(self._model, self._facts)

    def kill(self) -> None:
        """Do nothing: what runs in this process cannot be ended."""

    def close(self) -> None:
        """Do nothing: nothing is kept."""


@torch.inference_mode()
def _with_memory(run: Callable[[], T]) -> T:
    """Return what `run` returns; where memory is short, it gets a second try with all that can be freed."""
    try:
        return run()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    free_memory()
    return run()


def _shrunk(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return means over squares of pixels."""
    factor = -(-frame.shape[1] // _PREVIEW_WIDTH)
    height, width = (side // factor for side in frame.shape[:2])
    squares = frame[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    means: NDArray[np.float64] = squares.mean(axis=(1, 3))
    return means.round().astype(np.uint8)
