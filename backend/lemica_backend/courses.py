"""Budgets, and ranges of them, as the steps that they compute; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lemica_backend.errors import InvalidRequestError
from lemica_planner import CachePlan, Fill, PlanEntry

FULL = "full"
_TO = ".."


class Course(NamedTuple):
    """One way through all steps.

    Attributes
    ----------
    computed : frozenset of int
        The steps that run the block stack.
    reuse : mapping of int to Fill
        What every other step is made of.
    predicted_error : float or None
        The worst edge, in the units of the plan's metric; 0 if every step is computed, None if it was never measured.
    """

    computed: frozenset[int]
    reuse: Mapping[int, Fill]
    predicted_error: float | None

    @property
    def budget(self) -> int:
        """Number of computed steps."""
        return len(self.computed)


def full_course(steps: int) -> Course:
    """Return the course that computes every step; it needs no plan."""
    return Course(frozenset(range(steps)), {}, 0.0)


def course_of(entry: PlanEntry, plan: CachePlan) -> Course:
    """Return what an entry of the plan, or one made of its parts, says."""
    return Course(frozenset(entry.steps), entry.reuse(plan.provenance.operator), entry.predicted_error)


def courses_of(budget: str, plan: CachePlan) -> tuple[Course, ...]:
    """Return what a budget allows, by ascending number of computed steps.

    A budget that the plan knows, ``full`` included, allows one course. ``floor..ceiling`` allows every budget of the
    plan between the two, both included, that is not predicted to be worse than the floor.

    Raises
    ------
    UnknownBudgetError
        If the plan does not hold the budget, or an end of the range.
    InvalidRequestError
        If the ceiling has fewer steps than the floor.
    """
    if _TO not in budget or budget in plan.names:
        return (course_of(plan.resolve(budget), plan),)
    low, _, high = budget.partition(_TO)
    floor, ceiling = plan.resolve(low), plan.resolve(high)
    if floor.budget > ceiling.budget:
        raise InvalidRequestError(
            f"budget is {budget!r}, but {low.strip()} has {floor.budget} computed steps and {high.strip()} only "
            f"{ceiling.budget}; write the smaller one first"
        )
    between = [entry for entry in plan.entries.values() if floor.budget < entry.budget < ceiling.budget]
    chosen = {entry.budget: course_of(entry, plan) for entry in (floor, *between, ceiling)}
    return tuple(course for course in chosen.values() if _is_no_worse(course, floor))


def _is_no_worse(course: Course, floor: PlanEntry) -> bool:
    if course.predicted_error is None or floor.predicted_error is None:
        return True
    return course.predicted_error <= floor.predicted_error
