"""Other ways to serve the same model, plans and requests: what `bench_scheduling` compares the engine with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from lemica_backend.config import ModelConfig
from lemica_backend.denoise import denoise
from lemica_backend.errors import DeadlineExceededError
from lemica_backend.job import Job, start_job
from lemica_backend.models import VideoModel
from lemica_backend.planned import PlannedRequest, plan_request
from lemica_backend.types import GenerationRequest, GenerationResult, Outcome
from lemica_planner import CachePlan


@dataclass(frozen=True, eq=False)
class _Sent:
    planned: PlannedRequest
    on_done: Callable[[Outcome], None]
    arrived_s: float

    def is_overdue(self) -> bool:
        deadline_ms = self.planned.deadline_ms
        return deadline_ms is not None and (time.perf_counter() - self.arrived_s) * 1e3 > deadline_ms


class Batches:
    """Serves requests in batches, first come, first served.

    Parameters
    ----------
    model : VideoModel
    config : ModelConfig
    plan : CachePlan
    most : int
        Requests of a batch; 1 is one at a time.
    is_open : bool
        Whether requests join and leave a running batch at every step, as this engine did before it had a scheduler. If
        not, a batch is formed when the one before it has ended, and all of it is answered at its end, as in Triton's
        dynamic batching of a whole pipeline.

    Notes
    -----
    Rows decide for themselves what they compute here too, and a request is dropped when its deadline has passed.
    """

    def __init__(self, model: VideoModel, config: ModelConfig, plan: CachePlan, *, most: int, is_open: bool) -> None:
        self._model = model
        self._config = config
        self._plan = plan
        self._most = most
        self._is_open = is_open
        self._waiting: list[_Sent] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = ThreadPoolExecutor(1)
        self._end = self._thread.submit(self._loop)

    def submit(self, request: GenerationRequest, *, on_done: Callable[[Outcome], None]) -> None:
        """Queue a request."""
        planned = plan_request(request, info=self._model.info, config=self._config, plan=self._plan)
        with self._changed:
            self._waiting.append(_Sent(planned, on_done, time.perf_counter()))
            self._changed.notify()

    def close(self) -> None:
        """Wait for the end of what was sent."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._end.result()
        self._thread.shutdown()

    def _loop(self) -> None:
        with torch.inference_mode():
            running: dict[_Sent, Job] = {}
            while True:
                if self._is_open or not running:
                    running |= self._joining(self._most - len(running), wait=not running)
                if not running and self._is_closed and not self._waiting:
                    return
                denoise(self._model, [job for job in running.values() if not job.is_finished])
                running = self._answered(running)

    def _joining(self, most: int, *, wait: bool) -> dict[_Sent, Job]:
        with self._changed:
            self._changed.wait_for(lambda: not wait or self._waiting or self._is_closed)
            self._waiting = self._drop_overdue(self._waiting)
            joining, self._waiting = self._waiting[:most], self._waiting[most:]
        return {sent: start_job(self._model, sent.planned) for sent in joining}

    def _answered(self, running: dict[_Sent, Job]) -> dict[_Sent, Job]:
        """Answer who is overdue, and who is finished once the batch lets go; return the others."""
        running = {sent: running[sent] for sent in self._drop_overdue(running)}
        finished = [sent for sent, job in running.items() if job.is_finished]
        if not self._is_open and len(finished) < len(running):
            return running
        results: Iterable[GenerationResult] = (self._decode(running[sent]) for sent in finished)
        for sent, result in zip(finished, results if self._is_open else list(results), strict=True):
            sent.on_done(result)
        return {sent: job for sent, job in running.items() if not job.is_finished}

    def _drop_overdue(self, every: Iterable[_Sent]) -> list[_Sent]:
        in_time = []
        for sent in every:
            if sent.is_overdue():
                sent.on_done(DeadlineExceededError("overdue"))
            else:
                in_time.append(sent)
        return in_time

    def _decode(self, job: Job) -> GenerationResult:
        return GenerationResult(self._model.decode(job.latents), job.latents.float().cpu().numpy())
