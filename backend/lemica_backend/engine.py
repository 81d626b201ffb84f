"""The engine: requests come in here, wait in one line, and are computed step by step on one device or several.

Usable in process, without Triton. Whoever submits is answered exactly once, from one of the engine's threads. There is
no torch here: workers (`lemica_backend.worker`) run the model, in this process or in their own.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lemica_backend.admission import Admission
from lemica_backend.caller import Caller, Submission, never
from lemica_backend.config import ModelConfig
from lemica_backend.errors import (
    EngineUnavailableError,
    GenerationError,
    InvalidRequestError,
    LemicaError,
    ModelLoadError,
    naming_row,
)
from lemica_backend.fair_shares import FairShares
from lemica_backend.lane import Common, Lane
from lemica_backend.load_reporter import LoadReporter
from lemica_backend.planned import PlannedRequest, plan_request
from lemica_backend.plans import ServedPlan, parse_plan, require_plan_alone, require_plan_fits, require_sizes
from lemica_backend.process_worker import ProcessSource, Recipe
from lemica_backend.profile import Profile
from lemica_backend.ranking import Ranking
from lemica_backend.refusals import telling_refusals
from lemica_backend.session import Session
from lemica_backend.supervisor import Supervisor, WorkerState
from lemica_backend.ticking import Ticker
from lemica_backend.types import GenerationRequest, GenerationResult, Outcome
from lemica_backend.waiting import WaitingLine
from lemica_backend.watch import EngineLoad, NoWatcher, Progress, Watcher
from lemica_backend.worker import Facts, WorkerLostError, WorkerSource
from lemica_planner import CachePlan

if TYPE_CHECKING:
    from lemica_backend.models.base import VideoModel

_LOOK_S = 0.05  # between two looks at those who wait


class Workers(NamedTuple):
    """What runs the model, one for each device."""

    sources: tuple[WorkerSource, ...]


class Engine:
    """Serves one model.

    Parameters
    ----------
    model : VideoModel or Workers
        A model that is computed in this process, or workers that load it.
    config : ModelConfig
    plan : CachePlan or None
        Without a plan only ``budget=full`` is served.
    profile : Profile, optional
        What was measured of a model in this process; without it, the engine learns while it serves.
    watcher : Watcher, optional
        Is told of all that happens; see `lemica_backend.watch`.

    Raises
    ------
    ModelLoadError
        If a worker cannot load the model, or the plan was made for another one.
    """

    def __init__(
        self,
        model: VideoModel | Workers,
        config: ModelConfig,
        plan: CachePlan | None = None,
        *,
        profile: Profile | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        workers = model if isinstance(model, Workers) else _local(model, config, plan, profile)
        self.config = config
        self._own_plan = ServedPlan.of(plan, config)
        self._watcher: Watcher = watcher or NoWatcher()
        self._waiting = WaitingLine(config.limits.max_queue, config.limits.max_queue_cache_bytes)
        self._numbers = itertools.count()
        self._accepting = threading.Lock()  # so that no two requests are promised the same time
        self._supervisors = tuple(
            Supervisor(source, self._waiting, self._down, self._watcher) for source in workers.sources
        )
        try:
            self._facts = self._open(plan if isinstance(model, Workers) else None)
        except BaseException:
            self._waiting.close()
            for supervisor in self._supervisors:
                supervisor.close()
            raise
        self.info, self._profile = self._facts.info, self._facts.profile
        self._reporter = LoadReporter(self.load, self._watcher)
        self._begin()
        self._desk = threading.Thread(target=self._keep_waiting_line, name="lemica-waiting", daemon=True)
        self._desk.start()

    def _open(self, plan: CachePlan | None) -> Facts:
        """Wait until every device has its model."""
        try:
            facts = [supervisor.opened.result() for supervisor in self._supervisors]
        except WorkerLostError as error:
            raise ModelLoadError(f"the model cannot be loaded: {error}") from error
        require_plan_fits(plan, facts[0])
        return facts[0]

    def _begin(self) -> None:
        """Let every device serve from the one line."""
        config, profile, wanted = self.config, self._profile, self.config.scheduling
        shares, lanes = FairShares(wanted.low_priority_share), len(self._supervisors)
        ranking = Ranking(wanted.policy, wanted.ageing, wanted.deadline_margin)
        self._admission = Admission(config, profile, ranking, shares, lanes=lanes, absent_s=self._absent_s)
        deciding = threading.RLock()
        common = Common(
            config=config,
            line=self._waiting,
            cost=profile.cost,
            ranking=ranking,
            shares=shares,
            admission=self._admission,
            ticker=Ticker(profile.cost, shares, self._watcher, deciding),
            deciding=deciding,
            sessions=self._sessions,
            lanes=lambda: [each.lane for each in self._supervisors if each.has_worker and each.lane],
            watcher=self._watcher,
            report=self._reporter.report_if_due,
        )
        for supervisor in self._supervisors:
            supervisor.begin(Lane(common))

    def submit(
        self,
        request: GenerationRequest,
        *,
        on_done: Callable[[Outcome], None],
        is_cancelled: Callable[[], bool] = never,
        on_step: Callable[[Progress], None] | None = None,
    ) -> None:
        """Queue a request; `on_done` gets its result or its error, once, from one of the engine's threads.

        `on_step`, if given, gets the request's progress after every step, from such a thread, too.

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
        requests = [each.request for each in submissions]
        with telling_refusals(self._watcher, requests, self.config.defaults.budget):
            self._accept_all(submissions)

    def _accept_all(self, submissions: Sequence[Submission]) -> None:
        arrived_s = time.perf_counter()  # waiting for others to be accepted counts
        count, planned, sessions = len(submissions), list[PlannedRequest](), list[Session]()
        for row, each in enumerate(submissions):
            with naming_row(row, count):
                planned.append(self._plan(each.request, each.plan or self._own_plan))
        self._require_room(planned)  # what has no room is told so at once
        with self._accepting:
            self._require_room(planned)
            for row, (ready, each) in enumerate(zip(planned, submissions, strict=True)):
                sessions.append(self._session(ready, each, arrived_s))
                with naming_row(row, count):
                    self._accept(sessions[row], (*self._sessions(), *sessions[:row]))
            for session in sessions:
                session.tell_accepted()  # before a lane can tell of a step
            self._waiting.put(sessions)

    def open_plan(self, plan_json: str | None) -> ServedPlan:
        """Return a plan that submissions may then name; the weights stay as they are.

        Raises
        ------
        ModelLoadError
            If the plan is broken, or was made for another model.
        """
        plan = parse_plan(plan_json)
        require_plan_alone(plan, self.config)
        require_plan_fits(plan, self._facts)
        require_sizes(plan, self._profile, self.config)
        return ServedPlan.of(plan, self.config)

    def _require_room(self, planned: Sequence[PlannedRequest]) -> None:
        if all(each.down for each in self._supervisors):
            raise EngineUnavailableError(f"{self._supervisors[0].down}; try again later")
        self._waiting.require_room(len(planned))
        self._waiting.require_cache_room(sum(self._profile.cache_bytes(each) for each in planned))

    def _accept(self, session: Session, others: Sequence[Session]) -> None:
        try:
            self._admission.accept(session, others)
        except LemicaError:
            raise
        except Exception as error:  # a bug of the engine: this request's alone
            raise GenerationError(f"the request could not be accepted: {type(error).__name__}: {error}") from error

    def _plan(self, request: GenerationRequest, served: ServedPlan) -> PlannedRequest:
        planned = plan_request(request, info=self.info, config=self.config, plan=served.plan)
        limit, needed = self.config.limits.cache_bytes, self._profile.cache_bytes(planned)
        if limit is not None and needed > limit:
            raise InvalidRequestError(
                f"budget {planned.budget!r} needs a step cache of {needed} bytes; this server allows {limit} "
                "(limits.cache_bytes)"
            )
        return planned

    def _session(self, planned: PlannedRequest, submission: Submission, arrived_s: float) -> Session:
        return Session(
            planned,
            submission.caller,
            number=next(self._numbers),
            arrived_s=arrived_s,
            profile=self._profile,
            timeout_s=self.config.limits.timeout_s,
            watcher=self._watcher,
            served=submission.plan or self._own_plan,
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
        """Answer everything unfinished with `EngineUnavailableError`, and stop threads and workers."""
        self._waiting.close()
        for supervisor in self._supervisors:
            supervisor.close()
        self._desk.join()
        self._reporter.close()
        self._waiting.fail_all(EngineUnavailableError("the server is shutting this model down; send the request again"))

    def workers(self) -> tuple[WorkerState, ...]:
        """Return how the workers are, one for each device."""
        return tuple(each.state for each in self._supervisors)

    def cached_bytes(self) -> int:
        """Return the bytes that the started requests' step caches hold."""
        return sum(session.cached_bytes for session in self._active())

    def load(self) -> EngineLoad:
        """Return what the engine holds now."""
        sessions, limit = self._sessions(), self.config.limits.cache_bytes
        started = [session for session in sessions if session.is_started]
        return EngineLoad(
            waiting=len(sessions) - len(started),
            started=len(started),
            cached_bytes=sum(session.cached_bytes for session in started),
            reserved_bytes=sum(session.cache_bytes_limit for session in started),
            cache_limit_bytes=None if limit is None else limit * len(self._supervisors),
            backlog_s=sum(session.standing().left_s for session in sessions),
        )

    def etas_s(self) -> list[tuple[Caller, float | None]]:
        """Return who waits for an answer, and the seconds from now until they are predicted to have it."""
        sessions = self._sessions()
        etas = self._admission.etas(sessions)
        return [(session.caller, etas.get(session.number)) for session in sessions]

    def _active(self) -> tuple[Session, ...]:
        lanes = [supervisor.lane for supervisor in self._supervisors]
        return tuple(session for lane in lanes if lane for session in lane.active)

    def _sessions(self) -> tuple[Session, ...]:
        """Return every accepted request without an answer; one that starts in this moment is in it once."""
        sessions = dict.fromkeys((*self._waiting.sessions, *self._active()))
        return tuple(session for session in sessions if not session.is_answered)

    def _keep_waiting_line(self) -> None:
        """Answer who is not wanted any more where it waits, also while no lane looks."""
        while not self._waiting.is_closed:
            self._waiting.wait_for_any()
            self._waiting.drop_unwanted()
            self._waiting.wait_closed(_LOOK_S)

    def _absent_s(self) -> float:
        return min(each.absent_s for each in self._supervisors)

    def _down(self, reason: str) -> None:
        """Answer everyone who waits, if no device has a worker or will have one soon."""
        if all(each.down for each in self._supervisors):
            self._waiting.fail_all(EngineUnavailableError(f"{reason}; try again later"))


def _local(model: VideoModel, config: ModelConfig, plan: CachePlan | None, profile: Profile | None) -> Workers:
    """Return a worker in this process; torch is here already."""
    from lemica_backend.local_worker import LocalSource  # noqa: PLC0415
    from lemica_backend.measuring import measure_sizes  # noqa: PLC0415
    from lemica_backend.opening import facts_of  # noqa: PLC0415

    profile = profile or measure_sizes(model, config, plan)
    return Workers((LocalSource(model, facts_of(model, config, plan, profile)),))


def load_engine(
    model_dir: Path, config: ModelConfig, plan_json: str | None, *, watcher: Watcher | None = None
) -> Engine:
    """Load the model into a process for each device, or a group of them for each worker, and start an engine on them.

    Parameters
    ----------
    model_dir : Path
        The version folder, which holds ``model.json`` and the weights.
    config : ModelConfig
    plan_json : str or None
        The cache plan; without one only ``budget=full`` is served.
    watcher : Watcher, optional

    Raises
    ------
    ModelLoadError
        If the weights or the plan are broken, or the plan was made for another model.
    """
    plan = parse_plan(plan_json)
    require_plan_alone(plan, config)  # loading takes seconds, so what is broken is found before
    config.weights_dir(model_dir)
    workers = Workers(tuple(_source(model_dir, config, group, plan_json) for group in config.worker_groups))
    return Engine(workers, config, plan, watcher=watcher)


def _source(model_dir: Path, config: ModelConfig, group: tuple[str, ...], plan_json: str | None) -> WorkerSource:
    recipe = Recipe("lemica_backend.opening", "open_worker", (model_dir, config, group[0], plan_json, group[1:]))
    return ProcessSource(recipe, ",".join(group), config.limits.worker_timeout_s, keeps_spare=config.spare_worker)
