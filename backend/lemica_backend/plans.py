"""The plans that one engine serves at a time: a new one takes over for new requests, running ones keep theirs."""

from __future__ import annotations

from dataclasses import dataclass

from lemica_backend.config import ModelConfig
from lemica_backend.errors import ModelLoadError
from lemica_backend.operators import OPERATORS
from lemica_backend.plan_check import require_default, require_fit, require_operators
from lemica_backend.profile import Profile
from lemica_backend.replanning import Replanning
from lemica_backend.worker import Facts
from lemica_planner import CachePlan, PlannerError


@dataclass(frozen=True)
class ServedPlan:
    """A plan that was found to fit the model, and what requests with ranges can do with it.

    Attributes
    ----------
    plan : CachePlan or None
        None serves ``full`` only.
    replanning : Replanning
    """

    plan: CachePlan | None
    replanning: Replanning

    @classmethod
    def of(cls, plan: CachePlan | None, config: ModelConfig) -> ServedPlan:
        """Work out what is open to requests at each step; up to a second for long plans."""
        return cls(plan, Replanning(plan, is_allowed=config.scheduling.replan))


def parse_plan(plan_json: str | None) -> CachePlan | None:
    """Read the parameter ``cache_plan``.

    Raises
    ------
    ModelLoadError
        If it is no plan.
    """
    try:
        return CachePlan.from_json(plan_json) if plan_json else None
    except PlannerError as error:
        raise _plan_error(error) from error


def require_plan_alone(plan: CachePlan | None, config: ModelConfig) -> None:
    """Refuse what is wrong with a plan whatever the model is: its operators, and a default budget that it lacks.

    Raises
    ------
    ModelLoadError
        Naming the field.
    """
    try:
        if plan:
            require_operators(plan)
        require_default(config, plan)
    except PlannerError as error:
        raise _plan_error(error) from error


def require_plan_fits(plan: CachePlan | None, facts: Facts) -> None:
    """Refuse a plan that was made for another model.

    Raises
    ------
    ModelLoadError
        Naming every field that differs.
    """
    try:
        if plan:
            require_fit(plan, facts)
    except PlannerError as error:
        raise _plan_error(error) from error


def require_sizes(plan: CachePlan | None, profile: Profile, config: ModelConfig) -> None:
    """Refuse a plan whose cached values were not measured at load, where their bytes are limited.

    Raises
    ------
    ModelLoadError
        Naming the operators.
    """
    needed = {name for name in plan.operators if OPERATORS[name].source not in profile.value_bytes} if plan else set()
    if needed and config.limits.cache_bytes is not None:
        raise ModelLoadError(
            f"config.pbtxt, parameter cache_plan: what {', '.join(sorted(needed))} keeps was not measured when the "
            "engine started, so limits.cache_bytes could not be kept: unload every model of this engine, then load it"
        )


def _plan_error(error: PlannerError) -> ModelLoadError:
    return ModelLoadError(f"config.pbtxt, parameter cache_plan: {error}")
