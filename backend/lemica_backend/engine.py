"""The engine: one thread that takes every active request one denoising step further at each tick.

Usable in process, without Triton. Whoever submits is answered exactly once, from the engine's thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import torch

from lemica_backend.config import ModelConfig
from lemica_backend.denoise import denoise
from lemica_backend.errors import EngineUnavailableError, LemicaError, ModelLoadError
from lemica_backend.models import VideoModel, load_model, resample
from lemica_backend.plan_check import require_operators, require_switches
from lemica_backend.planned import FULL, plan_request
from lemica_backend.session import Session
from lemica_backend.types import GenerationRequest, GenerationResult, Outcome
from lemica_backend.waiting import WaitingLine
from lemica_planner import CachePlan, PlannerError

_log = logging.getLogger(__name__)


def _never() -> bool:
    return False


class Engine:
    """Serves one model.

    Parameters
    ----------
    model : VideoModel
    config : ModelConfig
    plan : CachePlan or None
        Without a plan only ``budget=full`` is served.
    """

    def __init__(self, model: VideoModel, config: ModelConfig, plan: CachePlan | None = None) -> None:
        self.model = model
        self.config = config
        self.plan = plan
        self._waiting = WaitingLine(config.limits.max_queue)
        self._active: list[Session] = []
        self._thread = threading.Thread(target=self._loop, name="lemica-engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        request: GenerationRequest,
        *,
        on_done: Callable[[Outcome], None],
        is_cancelled: Callable[[], bool] = _never,
    ) -> None:
        """Queue a request; `on_done` gets its result or its error, once, from the engine's thread.

        Raises
        ------
        InvalidRequestError
            If the model or the plan can never serve the request.
        EngineUnavailableError
            If the queue is full or the engine is closing.
        """
        planned = plan_request(request, info=self.model.info, config=self.config, plan=self.plan)
        timeout_s = self.config.limits.timeout_s
        self._waiting.put(Session(planned, on_done=on_done, is_cancelled=is_cancelled, timeout_s=timeout_s))

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
        """Return the bytes that the active requests' step caches hold."""
        return sum(session.cached_bytes for session in list(self._active))

    def _loop(self) -> None:
        reason = "the server is shutting this model down; send the request again"
        try:
            while self._admit():
                self._drop_unwanted()
                self._tick()
                self._finish()
        except BaseException:  # a bug of the engine: nobody may wait for an answer that never comes
            _log.exception("the engine stopped")
            reason = "the engine of this model stopped; reload the model"
            self._waiting.close()
        for session in (*self._active, *self._waiting.drain()):
            session.fail(EngineUnavailableError(reason))
        self._active.clear()

    def _admit(self) -> bool:
        """Start waiting requests while there is room; sleep when there is nothing to do. False: closing."""
        while len(self._active) < self.config.limits.max_active:
            session = self._waiting.get(block=not self._active)
            if session is None:
                break
            if session.start(self.model):
                self._active.append(session)
        return not self._waiting.is_closed

    def _drop_unwanted(self) -> None:
        self._waiting.drop_unwanted()
        self._active = [session for session in self._active if not session.drop_if_unwanted()]

    def _tick(self) -> None:
        """Take one step of everyone; when that fails, of each alone, so that a fault stays with its request."""
        if not self._active:
            return
        steps = {session: session.job.step for session in self._active}
        try:
            denoise(self.model, [session.job for session in self._active])
        except Exception:  # any fault of a forward; found again, and answered, below
            self._active = [
                session for session, step in steps.items() if session.job.step > step or session.step_alone(self.model)
            ]

    def _finish(self) -> None:
        for session in [session for session in self._active if session.job.is_finished]:
            self._active.remove(session)
            session.finish(self.model, self.config.fps)


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
    return Engine(model, config, plan)


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
            plan.resolve(budget)
            steps, guidance_scale = config.defaults.num_inference_steps, config.defaults.guidance_scale
            plan.require_match(num_inference_steps=steps, guidance_scale=guidance_scale)
        except PlannerError as error:
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
