"""Fill in what a request leaves open and decide its computed steps, or refuse it; no torch here."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from lemica_backend.config import ModelConfig
from lemica_backend.errors import InvalidRequestError
from lemica_backend.models.base import ModelInfo
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, Fill, PlannerError

SEED_LIMIT = 2**63
FULL = "full"
_T = TypeVar("_T")


@dataclass(frozen=True)
class PlannedRequest:
    """A request with nothing left open.

    Attributes
    ----------
    computed : frozenset of int
        The steps that run the block stack.
    predicted_error : float or None
        The plan's worst edge, in the units of its metric; 0 for ``full``, None if it was never measured.
    plan_id : str or None
        The plan that chose the steps; None for ``full``.
    is_calibrated : bool
        Whether the plan's errors were measured on this model; True for ``full``, which needs none.
    reuse : mapping of int to Fill
        What every skipped step is made of.
    """

    prompt: str
    negative_prompt: str
    seed: int
    guidance_scale: float
    num_inference_steps: int
    budget: str
    computed: frozenset[int]
    predicted_error: float | None
    plan_id: str | None
    is_calibrated: bool
    reuse: Mapping[int, Fill]
    deadline_ms: int | None
    priority: int


def plan_request(
    request: GenerationRequest, *, info: ModelInfo, config: ModelConfig, plan: CachePlan | None
) -> PlannedRequest:
    """Return the request with every default filled in.

    Raises
    ------
    InvalidRequestError
        If the model or the plan cannot serve the request; the message says what is allowed.
    """
    _check_size(request, info)
    steps = _pick(request.num_inference_steps, config.defaults.num_inference_steps)
    guidance_scale = _pick(request.guidance_scale, config.defaults.guidance_scale)
    _check_steps(steps, config, info)
    _check_guidance(guidance_scale, config)
    budget = _pick(request.budget, config.defaults.budget).strip()
    chosen = _choose_steps(budget, steps, guidance_scale, info, plan)
    return PlannedRequest(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=_seed(request.seed),
        guidance_scale=guidance_scale,
        num_inference_steps=steps,
        budget=budget,
        computed=chosen.computed,
        reuse=chosen.reuse,
        predicted_error=chosen.predicted_error,
        plan_id=plan.plan_id if plan and budget != FULL else None,
        is_calibrated=budget == FULL or bool(plan and plan.provenance.calibrated),
        deadline_ms=request.deadline_ms,
        priority=request.priority,
    )


def _check_size(request: GenerationRequest, info: ModelInfo) -> None:
    for name in ("height", "width", "num_frames"):
        got, served = getattr(request, name), getattr(info, name)
        if got is not None and got != served:
            raise InvalidRequestError(f"{name} is {got}; this model makes {served} only: leave {name} out or send that")


def _check_steps(steps: int, config: ModelConfig, info: ModelInfo) -> None:
    low, high = config.limits.min_steps, min(config.limits.max_steps, info.max_steps)
    if not low <= steps <= high:
        raise InvalidRequestError(f"num_inference_steps is {steps}; allowed are {low} to {high}")


def _check_guidance(guidance_scale: float, config: ModelConfig) -> None:
    limit = config.limits.max_guidance_scale
    if not 0 <= guidance_scale <= limit:
        raise InvalidRequestError(f"guidance_scale is {guidance_scale:g}; allowed are 0 to {limit:g}, or leave it out")


def _seed(seed: int | None) -> int:
    if seed is None:
        return secrets.randbelow(2**31)
    if not 0 <= seed < SEED_LIMIT:
        raise InvalidRequestError(
            f"seed is {seed}; allowed are 0 to {SEED_LIMIT - 1}, or leave it out to have one drawn"
        )
    return seed


class _Steps(NamedTuple):
    computed: frozenset[int]
    reuse: Mapping[int, Fill]
    predicted_error: float | None


def _choose_steps(budget: str, steps: int, guidance_scale: float, info: ModelInfo, plan: CachePlan | None) -> _Steps:
    if budget == FULL:
        return _Steps(frozenset(range(steps)), {}, 0.0)
    if plan is None:
        raise InvalidRequestError(f"budget is {budget!r}, but this model has no cache plan: only {FULL!r} is allowed")
    try:
        entry = plan.resolve(budget)
        plan.require_match(
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            num_frames=info.num_frames,
            height=info.height,
            width=info.width,
        )
    except PlannerError as error:
        raise InvalidRequestError(f"{error} (budget {FULL!r} is served without a plan)") from error
    return _Steps(frozenset(entry.steps), entry.reuse(plan.provenance.operator), entry.predicted_error)


def _pick(given: _T | None, default: _T) -> _T:
    return default if given is None else given
