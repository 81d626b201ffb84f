"""Fill in what a request leaves open and decide its computed steps, or refuse it; no torch here."""

from __future__ import annotations

import dataclasses
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from lemica_backend.config import ModelConfig
from lemica_backend.cost_model import COMPUTE
from lemica_backend.courses import FULL, Course, courses_of, full_course
from lemica_backend.errors import InvalidRequestError
from lemica_backend.model_info import ModelInfo
from lemica_backend.operators import OPERATORS
from lemica_backend.types import GenerationRequest, Image
from lemica_planner import CachePlan, Check, Fill, PlanMismatchError, PlannerError

__all__ = ["FULL", "SEED_LIMIT", "PlannedRequest", "plan_request"]

SEED_LIMIT = 2**63
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
    courses : tuple of Course
        What the budget allows, by ascending number of computed steps: one, or several where it is a range. The steps
        above are one of them, or, once the engine has planned anew, lie between the first and the last.
    checks : mapping of tuple of int to Check
        What the plan's forecasts usually miss; see `lemica_planner.plan_checks`.
    block_engine, plan_engine : str
        What runs the block stack, and what ran it when the plan was calibrated; the same for ``full``.
    outside_plan : tuple of str
        What the plan was not made for, where that is computed in full; then `budget` is ``full``.
    other_operators : frozenset of str
        Those that another course of a range may fill in steps with; empty without a range.
    client : str
        Whose request it is, for fair shares; empty where it does not say.
    deadline_ms : int or None
        Milliseconds from arrival that are promised, or the request is refused.
    timeout_ms : int or None
        Milliseconds from arrival after which nobody waits any more; nothing is promised.
    request_id : str
        What logs call it.
    image : Image or None
        What the video begins with; None for models that take none.
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
    courses: tuple[Course, ...]
    checks: Mapping[tuple[int, ...], Check]
    other_operators: frozenset[str]
    client: str
    deadline_ms: int | None
    timeout_ms: int | None
    priority: int
    block_engine: str = "eager"
    plan_engine: str = "eager"
    outside_plan: tuple[str, ...] = ()
    request_id: str = ""
    image: Image | None = None

    @property
    def is_range(self) -> bool:
        """Whether the engine may choose the number of computed steps."""
        return len(self.courses) > 1

    @property
    def operators(self) -> frozenset[str]:
        """Those that may fill in a step, now or on another course."""
        return self.other_operators | {fill.operator for fill in self.reuse.values()}

    def on(self, course: Course) -> PlannedRequest:
        """Return the request on another course."""
        return dataclasses.replace(
            self, computed=course.computed, reuse=course.reuse, predicted_error=course.predicted_error
        )

    def kind(self, step: int) -> str:
        """Return the kind of work that a step is; see `lemica_backend.cost_model.Work`."""
        return COMPUTE if step in self.computed else OPERATORS[self.reuse[step].operator].source

    @cached_property
    def steps_left(self) -> tuple[Mapping[str, int], ...]:
        """For each step, and the end: the steps from there on by their kind."""
        left: list[Counter[str]] = [Counter()]
        for step in reversed(range(self.num_inference_steps)):
            left.append(left[-1] + Counter((self.kind(step),)))
        return tuple(reversed(left))

    @cached_property
    def ticks_to_compute(self) -> tuple[int, ...]:
        """For each step, and the end: the skipped steps from there to the next computed one."""
        ticks = [0]
        for step in reversed(range(self.num_inference_steps)):
            ticks.append(0 if step in self.computed else ticks[-1] + 1)
        return tuple(reversed(ticks))


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
    _check_image(request.image, info)
    steps = _pick(request.num_inference_steps, config.defaults.num_inference_steps)
    guidance_scale = _pick(request.guidance_scale, config.defaults.guidance_scale)
    _check_steps(steps, config, info)
    _check_guidance(guidance_scale, config)
    budget = _pick(request.budget, config.defaults.budget).strip()
    outside = _outside_plan(budget, steps, guidance_scale, config, plan)
    budget = FULL if outside else budget
    courses = _courses(budget, steps, guidance_scale, info, plan)
    chosen = courses[-1]
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
        courses=courses,
        checks=plan.checks if plan and budget != FULL else {},
        other_operators=frozenset(plan.operators) if plan and len(courses) > 1 else frozenset(),
        client=request.client_id,
        deadline_ms=request.deadline_ms,
        timeout_ms=request.timeout_ms,
        priority=request.priority,
        block_engine=info.block_engine,
        plan_engine=(plan.provenance.block_engine or "eager") if plan and budget != FULL else info.block_engine,
        outside_plan=outside,
        request_id=request.request_id,
        image=request.image,
    )


def _check_size(request: GenerationRequest, info: ModelInfo) -> None:
    for name in ("height", "width", "num_frames"):
        got, served = getattr(request, name), getattr(info, name)
        if got is not None and got != served:
            raise InvalidRequestError(f"{name} is {got}; this model makes {served} only: leave {name} out or send that")


def _check_image(image: Image | None, info: ModelInfo) -> None:
    if not info.takes_image:
        if image is not None:
            raise InvalidRequestError("image is given, but this model makes videos of text alone: leave image out")
        return
    if image is None:
        raise InvalidRequestError("image is missing; this model makes videos that begin with one: send the file")
    in_its_width = abs(image.height * info.width / image.width - info.height)
    in_its_height = abs(image.width * info.height / image.height - info.width)
    if min(in_its_width, in_its_height) > 1:  # pixels: the pipeline would stretch it
        raise InvalidRequestError(
            f"image is {image.width} x {image.height}, and this model's videos are {info.width} x {info.height}, of "
            "another shape: cut or pad the image to that width to height; it is only scaled here"
        )


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


def _outside_plan(
    budget: str, steps: int, guidance_scale: float, config: ModelConfig, plan: CachePlan | None
) -> tuple[str, ...]:
    """Return what the plan was not made for, if such requests are computed in full and the plan has their budget."""
    if config.outside_plan == "refuse" or budget == FULL or plan is None:
        return ()
    try:
        courses_of(budget, plan)
        plan.require_match(num_inference_steps=steps, guidance_scale=guidance_scale)
    except PlanMismatchError as error:
        return tuple(error.differences)
    except PlannerError as error:
        raise InvalidRequestError(str(error)) from error
    return ()


def _courses(
    budget: str, steps: int, guidance_scale: float, info: ModelInfo, plan: CachePlan | None
) -> tuple[Course, ...]:
    if budget == FULL:
        return (full_course(steps),)
    if plan is None:
        raise InvalidRequestError(f"budget is {budget!r}, but this model has no cache plan: only {FULL!r} is allowed")
    try:
        courses = courses_of(budget, plan)
        plan.require_match(
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            num_frames=info.num_frames,
            height=info.height,
            width=info.width,
        )
    except PlannerError as error:
        raise InvalidRequestError(f"{error} (budget {FULL!r} is served without a plan)") from error
    return courses


def _pick(given: _T | None, default: _T) -> _T:
    return default if given is None else given
