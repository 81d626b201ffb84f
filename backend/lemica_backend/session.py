"""One accepted request, from the waiting line to its one answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lemica_backend.caller import Caller
from lemica_backend.config import ModelConfig
from lemica_backend.cost_model import DECODE, ENCODE_TEXT, Work
from lemica_backend.courses import Course
from lemica_backend.errors import DeadlineExceededError, GenerationError, LemicaError, RequestCancelledError
from lemica_backend.info import Account, make_info
from lemica_backend.planned import PlannedRequest
from lemica_backend.plans import ServedPlan
from lemica_backend.profile import Profile
from lemica_backend.standing import Standing
from lemica_backend.types import GenerationResult, Outcome
from lemica_backend.watch import OK, Accepted, Answered, NoWatcher, Progress, Started, Watcher, tell
from lemica_backend.worker import Decoded, Worker, WorkerLostError

_log = logging.getLogger(__name__)


class Session:
    """Owns a request's place at a worker and the duty to answer it once.

    Who claims it may change it: a lane, or whoever answers it while it waits. Any thread may ask for its `standing`.

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
    served : ServedPlan or None
        The plan that it follows; the engine always says.
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
        served: ServedPlan | None = None,
    ) -> None:
        self.planned = planned
        self._served = served
        self.number = number
        self.step = 0  # the next one to take
        self.cached_bytes = 0  # that its step cache holds
        self.rows = profile.rows(planned)  # its guidance branches
        self.was_lost = False  # with a worker, and sent to wait again
        self.caller = caller
        self.cache_bytes_limit = profile.cache_bytes(planned)
        self.eta_s: float | None = None  # when it will be finished, as predicted when it was accepted
        self.replanned: list[tuple[int, int]] = []  # the next step, and the number of computed steps from then on
        self.timings_ms: dict[str, float] = {}
        self.arrived_s = arrived_s
        self.is_answered = False
        self.is_claimed = False
        self._claiming = threading.Lock()
        self._asked = planned
        self._chosen = len(planned.computed)
        self._profile = profile
        self._watcher = watcher or NoWatcher()
        limits_ms = [limit for limit in (planned.deadline_ms, planned.timeout_ms) if limit]
        # from arrival; a deadline beyond it could be met by nobody
        self.limit_s = min([timeout_s, *(limit / 1e3 for limit in limits_ms)])
        self._is_told_of = False
        self._stepped_ms = 0.0
        self._worker: Worker | None = None

    @property
    def served(self) -> ServedPlan:
        """The plan that it follows."""
        assert self._served is not None
        return self._served

    def claim(self) -> bool:
        """Take it out of the hands of everyone else; False if someone else has."""
        with self._claiming:
            claimed, self.is_claimed = not self.is_claimed, True
        return claimed

    @property
    def is_started(self) -> bool:
        """Whether a worker holds it."""
        return self._worker is not None

    @property
    def is_finished(self) -> bool:
        """Whether no step is left."""
        return self.step == self.planned.num_inference_steps

    @property
    def work(self) -> Work:
        """What its next step adds to a tick; after the last step, decoding."""
        step = self.step
        return Work(self.planned.kind(step), self.rows) if step < self.planned.num_inference_steps else Work(DECODE, 1)

    @property
    def skipped_ahead(self) -> int:
        """How many skipped steps come before its next computed one."""
        return self.planned.ticks_to_compute[self.step]

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
            ticks_to_compute=self.skipped_ahead,
            is_started=self.is_started,
            cache_bytes=self.cache_bytes_limit,
        )

    def choose(self, course: Course) -> None:
        """Take a course before the first step."""
        self.planned = self.planned.on(course)
        self._chosen = course.budget

    def replan(self, course: Course) -> None:
        """Go on from the next step on another course, which agrees with what was computed."""
        planned = self.planned.on(course)
        if self._worker:
            self._worker.replan(self.number, planned)
        self.planned = planned
        self.replanned.append((self.step, course.budget))

    def start(self, worker: Worker) -> float | None:
        """Let a worker encode the text and draw the noise.

        Returns the seconds that this took, or None if the request is answered already.

        Raises
        ------
        WorkerLostError
            If the worker is gone; the request is not answered.
        """
        if self.drop_if_unwanted():
            return None
        self.timings_ms["queue"] = self._since_arrival_ms()
        try:
            started = worker.start(self.number, self.planned)
        except WorkerLostError:
            raise
        except Exception as error:  # any fault here is this request's alone
            self.fail(error)
            return None
        self._worker, self.rows = worker, started.rows
        self.timings_ms["encode_text"] = self._since_arrival_ms() - self.timings_ms["queue"]
        return self.timings_ms["encode_text"] / 1e3

    def start_over(self) -> None:
        """Let it wait as it came, for another worker; what it had is lost."""
        self._worker, self.step, self.cached_bytes, self.was_lost = None, 0, 0, True
        self.planned, self.replanned, self._chosen = self._asked, [], len(self._asked.computed)
        self.timings_ms, self._stepped_ms = {}, 0.0
        self.is_claimed = False

    def drop_if_unwanted(self) -> bool:
        """Answer a cancelled or overdue request; True if it was one."""
        error = self.unwanted()
        if error:
            self.fail(error)
        return error is not None

    def unwanted(self) -> LemicaError | None:
        """Return why nobody wants it any more, if that is so."""
        if self._is_gone():
            return self.caller.answered() or RequestCancelledError("cancelled by the client")
        if self._since_arrival_ms() > self.limit_s * 1e3:
            return DeadlineExceededError(f"not ready within its time limit of {self.limit_s:g} s")
        return None

    def _is_gone(self) -> bool:
        try:
            return self.caller.is_cancelled()
        except Exception:  # asking crosses into the server; a fault there must not stop the engine
            _log.exception("the client of request %s cannot be asked whether it has gone", self.planned.request_id)
            return True

    def stepped(self, seconds: float, cached_bytes: int, steps: int = 1) -> None:
        """Take note of steps that were taken."""
        self.step += steps
        self.cached_bytes = cached_bytes
        self._stepped_ms += seconds * 1e3
        if not self._is_told_of:
            self._is_told_of = True
            queue_s, first_step_s = self.timings_ms["queue"] / 1e3, self._since_arrival_ms() / 1e3
            tell(self._watcher, Started(self.planned.budget, queue_s, first_step_s))

    def tell_accepted(self) -> None:
        """Tell the caller that it will be served."""
        if self.caller.on_accepted is not None:
            self.caller.on_accepted(Accepted(self.planned.budget, self._eta_ms()))

    def tell_progress(self, worker: Worker, eta_ms: float | None) -> None:
        """Tell the caller of the step that was just taken."""
        if self.caller.on_step is None:
            return
        step = self.step - 1
        progress = Progress(step, self.planned.num_inference_steps, step in self.planned.computed, eta_ms)
        try:
            self.caller.on_step(progress._replace(preview=self._preview(worker, step)))
        except WorkerLostError:
            raise
        except Exception:  # the engine must survive whatever its caller does
            _log.exception("telling the progress of request %s failed", self.planned.request_id)

    def _preview(self, worker: Worker, step: int) -> NDArray[np.uint8] | None:
        try:
            return worker.preview(self.number) if self._wants_preview(step) else None
        except WorkerLostError:
            raise
        except Exception:  # too little memory, say: the progress itself is told all the same
            _log.warning("there is no preview of request %s", self.planned.request_id, exc_info=True)
            return None

    def _wants_preview(self, step: int) -> bool:
        """Whether to show what there is; after the last step, the video itself follows."""
        every = self.caller.preview_every
        return every is not None and (step + 1) % every == 0 and step + 1 < self.planned.num_inference_steps

    def finish(self, worker: Worker, config: ModelConfig) -> GenerationResult | None:
        """Decode and answer; return the result if there is one.

        Raises
        ------
        WorkerLostError
            If the worker is gone; the request is not answered.
        """
        decoding = self._since_arrival_ms()
        try:
            decoded = worker.decode(self.number)
        except WorkerLostError:
            raise
        except Exception as error:  # any fault here is this request's alone
            self.fail(error)
            return None
        result = self._result(decoded, decoding, config)
        self._answer(result)
        return result

    def _result(self, decoded: Decoded, decoding_ms: float, config: ModelConfig) -> GenerationResult:
        timings = self.timings_ms
        timings["paused"] = max(0.0, decoding_ms - sum(timings.values()) - self._stepped_ms)
        timings["denoise"] = decoding_ms - sum(timings.values())
        timings["decode"] = self._since_arrival_ms() - decoding_ms
        timings["total"] = self._since_arrival_ms()
        info = make_info(self.planned, decoded, timings, config, self._account())
        return GenerationResult(decoded.frames, decoded.latents, info)

    def _account(self) -> Account:
        return Account(self._chosen, tuple(self.replanned), self._eta_ms())

    def _eta_ms(self) -> float | None:
        return None if self.eta_s is None else (self.eta_s - self.arrived_s) * 1e3

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
        if self._worker:
            self._worker.drop(self.number)
        self._worker, self.cached_bytes = None, 0
        answered = self._answered(outcome)
        self.is_answered = True  # before anyone hears of it, and asks for more
        try:
            self.caller.on_done(outcome)
        except Exception:  # the engine must survive whatever its callers do
            _log.exception("answering request %s failed", self.planned.request_id)
        tell(self._watcher, answered)

    def _answered(self, outcome: Outcome) -> Answered:
        planned, error = self.planned, outcome if isinstance(outcome, LemicaError) else None
        return Answered(
            outcome=error.kind if error else OK,
            budget=planned.budget,
            num_steps=planned.num_inference_steps,
            computed_steps=sum(step < self.step for step in planned.computed),
            total_s=self._since_arrival_ms() / 1e3,
            eta_s=None if self.eta_s is None else self.eta_s - self.arrived_s,
            stages_s={name: value / 1e3 for name, value in self.timings_ms.items() if name != "total"},
            seed=planned.seed,
            message=str(error or ""),
            is_warned_of=isinstance(outcome, GenerationResult) and bool(outcome.info["quality_warning"]),
            request_id=planned.request_id,
            client=planned.client,
            priority=planned.priority,
        )

    def _since_arrival_ms(self) -> float:
        return (time.perf_counter() - self.arrived_s) * 1e3
