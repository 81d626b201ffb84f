"""One accepted request, from the waiting line to its one answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import torch

from lemica_backend.caller import Caller
from lemica_backend.cost_model import DECODE, ENCODE_TEXT, Work
from lemica_backend.courses import Course
from lemica_backend.denoise import denoise
from lemica_backend.errors import DeadlineExceededError, GenerationError, LemicaError, RequestCancelledError
from lemica_backend.info import Account, make_info
from lemica_backend.job import Job, start_job
from lemica_backend.models import VideoModel
from lemica_backend.planned import PlannedRequest
from lemica_backend.profile import Profile
from lemica_backend.standing import Standing
from lemica_backend.types import GenerationResult, Outcome
from lemica_backend.watch import Answered, NoWatcher, Progress, Watcher

_log = logging.getLogger(__name__)


class Session:
    """Owns a request's job and the duty to answer it once.

    Only the engine's thread changes it, once it waits; `standing` may be asked from any thread.

    Parameters
    ----------
    planned : PlannedRequest
    caller : Caller
    number : int
        Its own, ascending in the order of acceptance.
    arrived_s : float
        On the engine's clock; every limit counts from here.
    profile : Profile
    timeout_s : float
        Seconds after which the request is given up, however far it is.
    watcher : Watcher, optional
    """

    def __init__(
        self,
        planned: PlannedRequest,
        caller: Caller,
        *,
        number: int,
        arrived_s: float,
        profile: Profile,
        timeout_s: float,
        watcher: Watcher | None = None,
    ) -> None:
        self.planned = planned
        self.number = number
        self.caller = caller
        self.cache_bytes_limit = profile.cache_bytes(planned)
        self.eta_s: float | None = None  # when it will be finished, as predicted when it was accepted
        self.replanned: list[tuple[int, int]] = []  # the next step, and the number of computed steps from then on
        self.timings_ms: dict[str, float] = {}
        self.arrived_s = arrived_s
        self.is_answered = False
        self._chosen = len(planned.computed)
        self._profile = profile
        self._watcher = watcher or NoWatcher()
        limits_ms = [limit for limit in (planned.deadline_ms, planned.timeout_ms) if limit]
        # from arrival; a deadline beyond it could be met by nobody
        self.limit_s = min([timeout_s, *(limit / 1e3 for limit in limits_ms)])
        self._stepped_ms = 0.0
        self._job: Job | None = None

    @property
    def job(self) -> Job:
        """The running job; there is one between `start` and the answer."""
        assert self._job is not None
        return self._job

    @property
    def is_started(self) -> bool:
        """Whether there is a job."""
        return self._job is not None

    @property
    def step(self) -> int:
        """The next step to take."""
        job = self._job
        return job.step if job else 0

    @property
    def cached_bytes(self) -> int:
        """Bytes that the request's step cache holds."""
        job = self._job
        return job.cache.nbytes if job else 0

    @property
    def rows(self) -> int:
        """Its guidance branches."""
        job = self._job
        return len(job.texts) if job else self._profile.rows(self.planned)

    @property
    def work(self) -> Work:
        """What its next step adds to a tick; after the last step, decoding."""
        step = self.step
        return Work(self.planned.kind(step), self.rows) if step < self.planned.num_inference_steps else Work(DECODE, 1)

    def standing(self, steps_left: Mapping[str, int] | None = None) -> Standing:
        """Return how it stands, or how it would with other steps left."""
        planned, step = self.planned, self.step
        left = planned.steps_left[step] if steps_left is None else steps_left
        text_s = 0.0 if self.is_started else self._profile.cost.seconds(Work(ENCODE_TEXT, 1))
        return Standing(
            number=self.number,
            priority=planned.priority,
            client=planned.client,
            arrived_s=self.arrived_s,
            limit_s=self.arrived_s + self.limit_s,
            deadline_s=None if planned.deadline_ms is None else self.arrived_s + self.limit_s,
            left_s=text_s + self._profile.cost.left_s(left, self.rows),
            work=self.work,
            ticks_to_compute=planned.ticks_to_compute[step],
            is_started=self.is_started,
            cache_bytes=self.cache_bytes_limit,
        )

    def choose(self, course: Course) -> None:
        """Take a course before the first step."""
        self.planned = self.planned.on(course)
        self._chosen = course.budget

    def replan(self, course: Course) -> None:
        """Go on from the next step on another course, which agrees with what was computed."""
        self.planned = self.job.planned = self.planned.on(course)
        self.replanned.append((self.job.step, course.budget))

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
        self._profile.cost.observe([Work(ENCODE_TEXT, 1)], self.timings_ms["encode_text"] / 1e3)
        return True

    def drop_if_unwanted(self) -> bool:
        """Answer a cancelled or overdue request; True if it was one."""
        if self._is_gone():
            self.fail(RequestCancelledError("cancelled by the client"))
        elif self._since_arrival_ms() > self.limit_s * 1e3:
            self.fail(DeadlineExceededError(f"not ready within its time limit of {self.limit_s:g} s"))
        else:
            return False
        return True

    def _is_gone(self) -> bool:
        try:
            return self.caller.is_cancelled()
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

    def stepped(self, seconds: float) -> None:
        """Take note of a step that was taken."""
        self._stepped_ms += seconds * 1e3

    def tell_progress(self, eta_ms: float | None) -> None:
        """Tell the caller of the step that was just taken."""
        if self.caller.on_step is None:
            return
        step = self.job.step - 1
        progress = Progress(step, self.planned.num_inference_steps, step in self.planned.computed, eta_ms)
        try:
            self.caller.on_step(progress)
        except Exception:  # the engine must survive whatever its caller does
            _log.exception("telling a request's progress failed")

    def finish(self, model: VideoModel, fps: int) -> None:
        """Decode and answer."""
        decoding = self._since_arrival_ms()
        self.timings_ms["paused"] = max(0.0, decoding - sum(self.timings_ms.values()) - self._stepped_ms)
        self.timings_ms["denoise"] = decoding - sum(self.timings_ms.values())
        try:
            with torch.inference_mode():
                result = self._decode(model)
            self.timings_ms["decode"] = self._since_arrival_ms() - decoding
            self.timings_ms["total"] = self._since_arrival_ms()
            self._profile.cost.observe([Work(DECODE, 1)], self.timings_ms["decode"] / 1e3)
            result.info.update(make_info(self.job, self.timings_ms, fps, self._account()))
        except Exception as error:  # any fault here is this request's alone
            self.fail(error)
        else:
            self._answer(result)

    def _account(self) -> Account:
        return Account(self._chosen, tuple(self.replanned), self._eta_ms())

    def _eta_ms(self) -> float | None:
        return None if self.eta_s is None else (self.eta_s - self.arrived_s) * 1e3

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
        """Free what the request held, then answer, unless it is answered already."""
        if self.is_answered:
            return
        if self._job:
            self._job.cache.clear()
        self._job = None
        answered = Answered(outcome, self.planned.budget, self._since_arrival_ms(), self._eta_ms())
        self.is_answered = True  # before anyone hears of it, and asks for more
        told: tuple[Callable[[], None], ...] = (
            lambda: self.caller.on_done(outcome),
            lambda: self._watcher.answered(answered),
        )
        for tell in told:
            try:
                tell()
            except Exception:  # the engine must survive whatever its callers do
                _log.exception("answering a request failed")

    def _since_arrival_ms(self) -> float:
        return (time.perf_counter() - self.arrived_s) * 1e3
