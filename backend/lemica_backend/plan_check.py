"""Whether a plan can be served at all by this version: its operators and their weights."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection

from lemica_backend.errors import ModelLoadError
from lemica_backend.operators import OPERATORS
from lemica_planner import CachePlan, Fill, PlanEntry

__all__ = ["require_operators", "require_switches"]


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


def _require_weights(entry: PlanEntry, step: int, fill: Fill) -> None:
    operator = OPERATORS[fill.operator]
    fits = len(operator.fits)
    values = range(1, min(operator.order + 1, bisect_right(entry.steps, step)) + 1) if fits else (0,)
    allowed = [fits * count for count in values]
    if len(fill.weights) not in allowed:
        raise ModelLoadError(
            f"config.pbtxt, parameter cache_plan: at step {step} of budget {entry.budget}, {fill.operator!r} has "
            f"{len(fill.weights)} weights; allowed are {' or '.join(map(str, allowed))}: calibrate again"
        )
