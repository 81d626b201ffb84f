"""One accepted request, from the waiting line to its one answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from lemica_backend.denoise import denoise
from lemica_backend.errors import DeadlineExceededError, GenerationError, LemicaError, RequestCancelledError
from lemica_backend.info import make_info
from lemica_backend.job import Job, start_job
from lemica_backend.models import VideoModel
from lemica_backend.planned import PlannedRequest
from lemica_backend.types import GenerationResult, Outcome

_log = logging.getLogger(__name__)


class Session:
    """Owns a request's job and the duty to answer it once; only the engine's thread calls its methods.

    Parameters
    ----------
    planned : PlannedRequest
    on_done : callable
        Gets the outcome.
    is_cancelled : callable
        Whether the client has gone away.
    timeout_s : float
        Seconds after which the request is given up, however far it is.
    """

    def __init__(
        self,
        planned: PlannedRequest,
        *,
        on_done: Callable[[Outcome], None],
        is_cancelled: Callable[[], bool],
        timeout_s: float,
    ) -> None:
        self.planned = planned
        self._on_done = on_done
        self._is_cancelled = is_cancelled
        self._arrived = time.perf_counter()
        limit_s = timeout_s if planned.deadline_ms is None else min(timeout_s, planned.deadline_ms / 1e3)
        self._limit_s = limit_s
        self._job: Job | None = None
        self.timings_ms: dict[str, float] = {}

    @property
    def job(self) -> Job:
        """The running job; there is one between `start` and the answer."""
        assert self._job is not None
        return self._job

    @property
    def cached_bytes(self) -> int:
        """Bytes that the request's step cache holds."""
        return self._job.cache.nbytes if self._job else 0

    def start(self, model: VideoModel) -> bool:
        """Encode the text and draw the noise; False if the request is answered already."""
        if self.drop_if_unwanted():
            return False
        self.timings_ms["queue"] = self._since_arrival_ms()
        try:
            with torch.inference_mode():
                self._job = start_job(model, self.planned)
        except Exception as error:  # any fault here is this request's alone
            return self.fail(error)
        self.timings_ms["encode_text"] = self._since_arrival_ms() - self.timings_ms["queue"]
        return True

    def drop_if_unwanted(self) -> bool:
        """Answer a cancelled or overdue request; True if it was one."""
        if self._is_gone():
            self.fail(RequestCancelledError("cancelled by the client"))
        elif self._since_arrival_ms() > self._limit_s * 1e3:
            self.fail(DeadlineExceededError(f"not ready within its time limit of {self._limit_s:g} s"))
        else:
            return False
        return True

    def _is_gone(self) -> bool:
        try:
            return self._is_cancelled()
        except Exception:  # asking crosses into the server; a fault there must not stop the engine
            _log.exception("a client cannot be asked whether it has gone away")
            return True

    def step_alone(self, model: VideoModel) -> bool:
        """Take one step without neighbours; False if it failed and the request is answered."""
        try:
            denoise(model, [self.job])
        except Exception as error:  # any fault here is this request's alone
            return self.fail(error)
        return True

    def finish(self, model: VideoModel, fps: int) -> None:
        """Decode and answer."""
        decoding = self._since_arrival_ms()
        self.timings_ms["denoise"] = decoding - sum(self.timings_ms.values())
        try:
            with torch.inference_mode():
                result = self._decode(model)
            self.timings_ms["decode"] = self._since_arrival_ms() - decoding
            self.timings_ms["total"] = self._since_arrival_ms()
            result.info.update(make_info(self.job, self.timings_ms, fps))
        except Exception as error:  # any fault here is this request's alone
            self.fail(error)
        else:
            self._answer(result)

    def _decode(self, model: VideoModel) -> GenerationResult:
        latents = self.job.latents
        if not torch.isfinite(latents).all():
            raise GenerationError("the latents are not finite (NaN or infinity); try another seed or guidance_scale")
        return GenerationResult(model.decode(latents, self.job.planned.seed), latents.float().cpu().numpy())

    def fail(self, error: Exception) -> bool:
        """Answer with `error`; always False."""
        if isinstance(error, LemicaError):
            self._answer(error)
        else:
            fault = GenerationError(f"generation failed: {type(error).__name__}: {error}")
            fault.__cause__ = error  # whoever logs the answer logs where it came from
            self._answer(fault)
        return False

    def _answer(self, outcome: Outcome) -> None:
        """Free what the request held, then answer."""
        if self._job:
            self._job.cache.clear()
        self._job = None
        try:
            self._on_done(outcome)
        except Exception:  # the engine must survive whatever its caller does
            _log.exception("answering a request failed")

    def _since_arrival_ms(self) -> float:
        return (time.perf_counter() - self._arrived) * 1e3
