"""The engine: one thread that, tick by tick, takes some of the accepted requests one denoising step further.

Usable in process, without Triton. Whoever submits is answered exactly once, from the engine's thread.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import torch

from lemica_backend.admission import Admission
from lemica_backend.caller import Caller, Submission, never
from lemica_backend.config import ModelConfig
from lemica_backend.courses import FULL, courses_of
from lemica_backend.errors import EngineUnavailableError, InvalidRequestError, LemicaError, ModelLoadError, naming_row
from lemica_backend.fair_shares import FairShares
from lemica_backend.models import VideoModel, load_model, resample
from lemica_backend.plan_check import require_operators, require_switches
from lemica_backend.planned import PlannedRequest, plan_request
from lemica_backend.profile import Profile, measure_profile
from lemica_backend.ranking import Ranking
from lemica_backend.scheduler import Room, Scheduler
from lemica_backend.session import Session
from lemica_backend.ticking import Ticker
from lemica_backend.types import GenerationRequest, GenerationResult, Outcome
from lemica_backend.waiting import WaitingLine
from lemica_backend.watch import EngineLoad, NoWatcher, Progress, Watcher
from lemica_planner import CachePlan, PlannerError

_log = logging.getLogger(__name__)


class Engine:
    """Serves one model.

    Parameters
    ----------
    model : VideoModel
    config : ModelConfig
    plan : CachePlan or None
        Without a plan only ``budget=full`` is served.
    profile : Profile, optional
        What was measured of the model; without it, the engine learns while it serves.
    watcher : Watcher, optional
        Is told of every tick and every answer.
    """

    def __init__(
        self,
        model: VideoModel,
        config: ModelConfig,
        plan: CachePlan | None = None,
        *,
        profile: Profile | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.model = model
        self.config = config
        self.plan = plan
        self._profile = profile or _profile_without_times(model, config, plan)
        self._watcher: Watcher = watcher or NoWatcher()
        self._waiting = WaitingLine(config.limits.max_queue)
        self._active: tuple[Session, ...] = ()
        self._numbers = itertools.count()
        self._accepting = threading.Lock()  # so that no two requests are promised the same time
        wanted = config.scheduling
        ranking = Ranking(wanted.policy, wanted.ageing, wanted.deadline_margin)
        self._shares = FairShares()
        self._admission = Admission(config, self._profile, plan, ranking, self._shares)
        self._scheduler = Scheduler(ranking, self._profile.cost, align_ticks=wanted.align_ticks)
        self._ticker = Ticker(model, self._profile.cost, self._shares, self._watcher)
        self._thread = threading.Thread(target=self._loop, name="lemica-engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        request: GenerationRequest,
        *,
        on_done: Callable[[Outcome], None],
        is_cancelled: Callable[[], bool] = never,
        on_step: Callable[[Progress], None] | None = None,
    ) -> None:
        """Queue a request; `on_done` gets its result or its error, once, from the engine's thread.

        `on_step`, if given, gets the request's progress after every step, from the same thread.

        Raises
        ------
        InvalidRequestError
            If the model or the plan can never serve the request.
        EngineUnavailableError
            If the queue is full, the engine is closing, or the request's deadline cannot be met.
        """
        self.submit_all([Submission(request, Caller(on_done, is_cancelled, on_step))])

    def submit_all(self, submissions: Sequence[Submission]) -> None:
        """Queue requests that belong together: all of them, or none if one of them is refused.

        Raises what `submit` raises; of several requests, the error names the one it is about.
        """
        arrived_s = time.perf_counter()  # waiting for others to be accepted counts
        count, planned, sessions = len(submissions), list[PlannedRequest](), list[Session]()
        for row, each in enumerate(submissions):
            with naming_row(row, count):
                planned.append(self._plan(each.request))
        self._waiting.require_room(count)  # a full line says so at once
        with self._accepting:
            self._waiting.require_room(count)
            for row, (ready, (_, caller)) in enumerate(zip(planned, submissions, strict=True)):
                sessions.append(self._session(ready, caller, arrived_s))
                with naming_row(row, count):
                    self._admission.accept(sessions[row], (*self._sessions(), *sessions[:row]))
            self._waiting.put(sessions)

    def _plan(self, request: GenerationRequest) -> PlannedRequest:
        planned = plan_request(request, info=self.model.info, config=self.config, plan=self.plan)
        limit, needed = self.config.limits.cache_bytes, self._profile.cache_bytes(planned)
        if limit is not None and needed > limit:
            raise InvalidRequestError(
                f"budget {planned.budget!r} needs a step cache of {needed} bytes; this server allows {limit} "
                "(limits.cache_bytes)"
            )
        return planned

    def _session(self, planned: PlannedRequest, caller: Caller, arrived_s: float) -> Session:
        return Session(
            planned,
            caller,
            number=next(self._numbers),
            arrived_s=arrived_s,
            profile=self._profile,
            timeout_s=self.config.limits.timeout_s,
            watcher=self._watcher,
        )

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """Make one video and wait for it; raises what `submit` raises, and the request's own error."""
        done: Future[Outcome] = Future()
        self.submit(request, on_done=done.set_result)
        outcome = done.result()
        if isinstance(outcome, LemicaError):
            raise outcome
        return outcome

    def close(self) -> None:
        """Answer everything unfinished with `EngineUnavailableError` and stop the thread."""
        self._waiting.close()
        self._thread.join()

    def cached_bytes(self) -> int:
        """Return the bytes that the started requests' step caches hold."""
        return sum(session.cached_bytes for session in self._active)

    def load(self) -> EngineLoad:
        """Return what the engine holds now."""
        sessions = self._sessions()
        started = [session for session in sessions if session.is_started]
        return EngineLoad(
            waiting=len(sessions) - len(started),
            started=len(started),
            cached_bytes=sum(session.cached_bytes for session in started),
            reserved_bytes=sum(session.cache_bytes_limit for session in started),
            cache_limit_bytes=self.config.limits.cache_bytes,
            backlog_s=sum(session.standing().left_s for session in sessions),
        )

    def _sessions(self) -> tuple[Session, ...]:
        """Return every accepted request without an answer; one that starts in this moment is in it once."""
        sessions = dict.fromkeys((*self._waiting.sessions, *self._active))
        return tuple(session for session in sessions if not session.is_answered)

    def _others(self, session: Session) -> tuple[Session, ...]:
        return tuple(other for other in self._sessions() if other is not session)

    def _loop(self) -> None:
        reason = "the server is shutting this model down; send the request again"
        try:
            while self._has_work():
                self._drop_unwanted()
                self._tick()
                self._finish()
        except BaseException:  # a bug of the engine: nobody may wait for an answer that never comes
            _log.exception("the engine stopped")
            reason = "the engine of this model stopped; reload the model"
            self._waiting.close()
        for session in (*self._active, *self._waiting.drain()):
            session.fail(EngineUnavailableError(reason))
        self._active = ()

    def _has_work(self) -> bool:
        """Sleep while there is nothing to do. False: closing."""
        if not self._active:
            self._waiting.wait_for_any()
        return not self._waiting.is_closed

    def _drop_unwanted(self) -> None:
        self._waiting.drop_unwanted()
        self._active = tuple(session for session in self._active if not session.drop_if_unwanted())

    def _tick(self) -> None:
        """Take one step of the requests that the scheduler chooses."""
        sessions = {session.number: session for session in self._sessions()}
        self._shares.update({session.planned.client for session in sessions.values()})
        standings = [session.standing() for session in sessions.values()]
        chosen = self._scheduler.choose(standings, self._admission.shares(), self._room(), time.perf_counter())
        stepping = [sessions[each.number] for each in chosen]
        stepped = self._ticker.step([session for session in stepping if session.is_started or self._start(session)])
        self._active = tuple(session for session in self._active if not session.is_answered)
        for session in stepped:
            if not session.job.is_finished:
                self._admission.go_on(session, self._others(session))
        self._tell_progress(stepped)

    def _room(self) -> Room:
        limits = self.config.limits
        reserved = sum(session.cache_bytes_limit for session in self._active)
        free_bytes = math.inf if limits.cache_bytes is None else limits.cache_bytes - reserved
        return Room(limits.max_active - len(self._active), free_bytes)

    def _start(self, session: Session) -> bool:
        self._admission.begin(session, self._others(session))
        is_started = session.start(self.model)
        if is_started:
            self._active = (*self._active, session)
        self._waiting.remove(session)
        return is_started

    def _tell_progress(self, stepped: list[Session]) -> None:
        if any(session.caller.on_step for session in stepped):
            etas = self._admission.etas(self._sessions())
            for session in stepped:
                eta_s = etas.get(session.number)
                session.tell_progress(None if eta_s is None else eta_s * 1e3)

    def _finish(self) -> None:
        finished = [session for session in self._active if session.job.is_finished]
        for session in finished:
            session.finish(self.model, self.config.fps)
            self._active = tuple(each for each in self._active if each is not session)


def _profile_without_times(model: VideoModel, config: ModelConfig, plan: CachePlan | None) -> Profile:
    """Measure what must be known, no more."""
    scheduling = config.scheduling.model_copy(update={"warm_up_s": 0.0})
    return measure_profile(model, config.model_copy(update={"scheduling": scheduling}), plan)


def open_model(model_dir: Path, config: ModelConfig) -> VideoModel:
    """Load the weights that ``model.json`` names; raises `ModelLoadError`."""
    if config.threads:
        torch.set_num_threads(config.threads)
    model = load_model(
        config.family,
        _weights(model_dir, config),
        dtype=getattr(torch, config.dtype),
        device=_device(config.device),
        size=config.size,
        options=config.options,
    )
    return resample(model, config.scheduler) if config.scheduler else model


def load_engine(model_dir: Path, config: ModelConfig, plan_json: str | None) -> Engine:
    """Load the model and start an engine on it.

    Parameters
    ----------
    model_dir : Path
        The version folder, which holds ``model.json`` and the weights.
    config : ModelConfig
    plan_json : str or None
        The cache plan; without one only ``budget=full`` is served.

    Raises
    ------
    ModelLoadError
        If the weights or the plan are broken, or the plan was made for another model.
    """
    try:
        plan = CachePlan.from_json(plan_json) if plan_json else None
        model = open_model(model_dir, config)  # takes seconds, so a broken plan is found before
        if plan:
            _require_fit(plan, model)
        _require_default(config, plan)
    except PlannerError as error:
        raise ModelLoadError(f"config.pbtxt, parameter cache_plan: {error}") from error
    return Engine(model, config, plan, profile=measure_profile(model, config, plan))


def _require_fit(plan: CachePlan, model: VideoModel) -> None:
    info = model.info
    require_operators(plan)
    plan.require_match(
        weights_hash=info.weights_hash,
        scheduler=info.scheduler,
        scheduler_config=info.scheduler_config,
        num_frames=info.num_frames,
        height=info.height,
        width=info.width,
    )
    scheduler = model.new_scheduler(plan.provenance.num_inference_steps, seed=0)
    require_switches(plan, model.switches(scheduler.timesteps))


def _require_default(config: ModelConfig, plan: CachePlan | None) -> None:
    budget = config.defaults.budget
    if plan is None and budget != FULL:
        raise ModelLoadError(
            f"model.json, defaults.budget: got {budget!r}, but without a cache_plan only 'full' is served"
        )
    if plan and budget != FULL:
        try:
            courses_of(budget, plan)
            steps, guidance_scale = config.defaults.num_inference_steps, config.defaults.guidance_scale
            plan.require_match(num_inference_steps=steps, guidance_scale=guidance_scale)
        except (PlannerError, InvalidRequestError) as error:
            raise ModelLoadError(f"model.json, defaults: {error}") from error


def _weights(model_dir: Path, config: ModelConfig) -> Path:
    folder = config.weights_dir(model_dir)
    if folder is not None:
        return folder
    assert config.hub_id is not None
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only a server that may download needs it

    try:
        return Path(snapshot_download(config.hub_id, revision=config.hub_revision))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"model.json: cannot get hub_id {config.hub_id!r}: {error}") from error


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
