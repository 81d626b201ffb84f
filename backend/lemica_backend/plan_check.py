"""Whether a plan can be served: its operators and their weights, the model it is for, the default budget."""

from __future__ import annotations

from collections.abc import Collection

from lemica_backend.config import ModelConfig
from lemica_backend.courses import FULL, courses_of
from lemica_backend.errors import InvalidRequestError, ModelLoadError
from lemica_backend.operators import OPERATORS, describe_wrong_weights
from lemica_backend.worker import Facts
from lemica_planner import CachePlan, Fill, PlanEntry, PlannerError


def require_operators(plan: CachePlan) -> None:
    """Refuse a plan with an operator that is not known, or with weights that its operator cannot use.

    Raises
    ------
    ModelLoadError
        Naming the operator, or the budget and step.
    """
    unknown = sorted(plan.operators - set(OPERATORS))
    if unknown:
        served = ", ".join(OPERATORS)
        raise ModelLoadError(
            f"config.pbtxt, parameter cache_plan: operator is {unknown[0]!r}; this version serves {served}"
        )
    for entry in plan.entries.values():
        for step, fill in entry.reuse(plan.provenance.operator).items():
            _require_weights(entry, step, fill)


def require_switches(plan: CachePlan, switches: Collection[int]) -> None:
    """Refuse a plan that skips a step at which the model's other weights take over.

    Raises
    ------
    ModelLoadError
        Naming the budget and the step.
    """
    for entry in plan.entries.values():
        skipped = sorted(set(switches) - set(entry.steps))
        if skipped:
            raise ModelLoadError(
                f"config.pbtxt, parameter cache_plan: budget {entry.budget} skips step {skipped[0]}, where the model's "
                f"second transformer takes over; nothing computed before can be reused there: calibrate again"
            )


def require_fit(plan: CachePlan, facts: Facts) -> None:
    """Refuse a plan that was made for another model; raises `ModelLoadError` or `PlannerError`, naming what differs."""
    info = facts.info
    refused = sorted(plan.operators - facts.operators) if facts.operators is not None else []
    if refused:
        raise ModelLoadError(
            f"config.pbtxt, parameter cache_plan: operator is {refused[0]!r}; family {info.family!r} serves "
            f"{', '.join(sorted(facts.operators or ()))}"
        )
    plan.require_match(**info.plan_facts)
    require_switches(plan, facts.switches)


def require_default(config: ModelConfig, plan: CachePlan | None) -> None:
    """Refuse a default budget that the plan does not have; raises `ModelLoadError`."""
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


def _require_weights(entry: PlanEntry, step: int, fill: Fill) -> None:
    wrong = describe_wrong_weights(entry, step, fill)
    if wrong:
        raise ModelLoadError(f"config.pbtxt, parameter cache_plan: {wrong}")
