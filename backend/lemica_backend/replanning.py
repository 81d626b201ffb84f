"""With how many computed steps a request whose budget is a range can still end; no torch here."""

from __future__ import annotations

from collections.abc import Mapping

from lemica_backend.cost_model import COMPUTE
from lemica_backend.courses import Course, course_of
from lemica_backend.operators import OPERATORS
from lemica_backend.planned import PlannedRequest
from lemica_planner import CachePlan
from lemica_planner.continuations import Continuations


class Replanning:
    """What is open to a request at a step; all of it is worked out at load, where nobody waits for it.

    Before its first step, every course of its range. Later, if it is allowed and the plan's operators look back one
    computed step at most, every way on that `lemica_planner.continuations` knows from its next computed step, or from
    the last one if that was the step before.

    Parameters
    ----------
    plan : CachePlan or None
    is_allowed : bool
        Whether started requests may change.
    """

    def __init__(self, plan: CachePlan | None, *, is_allowed: bool) -> None:
        self._plan = plan
        self._continuations = _continuations(plan, is_allowed)

    def totals(self, planned: PlannedRequest, step: int) -> list[int]:
        """Return the numbers of computed steps that the request can end with, ascending; `step` is its next one."""
        if step == 0 or not planned.is_range:
            return [course.budget for course in planned.courses] if step == 0 else [len(planned.computed)]
        floor, ceiling = planned.courses[0].budget, planned.courses[-1].budget
        found = set(self._continuations.totals(_settled(planned, step), floor=floor)) if self._continuations else set()
        return sorted({len(planned.computed), *(total for total in found if total <= ceiling)})

    def course(self, planned: PlannedRequest, step: int, total: int) -> Course:
        """Return the course that has one of these totals."""
        if step == 0:
            return next(course for course in planned.courses if course.budget == total)
        assert self._plan
        assert self._continuations
        return course_of(self._continuations.path(_settled(planned, step), total), self._plan)

    def steps_left(self, planned: PlannedRequest, step: int, total: int) -> Mapping[str, int]:
        """Return the steps from `step` on by their kind, on the course with that total."""
        if total == len(planned.computed):
            return planned.steps_left[step]
        computed = total - sum(1 for at in planned.computed if at < step)
        skipped = planned.num_inference_steps - step - computed
        return {COMPUTE: computed, _skipped_kind(planned): skipped}


def _continuations(plan: CachePlan | None, is_allowed: bool) -> Continuations | None:
    if plan is None or not is_allowed:
        return None
    looks_back = max(OPERATORS[name].order for name in plan.operators)
    return Continuations(plan, looks_back=looks_back) if looks_back <= 1 else None


def _settled(planned: PlannedRequest, step: int) -> tuple[int, ...]:
    """Return the computed steps up to the one from which the request can go on otherwise."""
    up_to = step - 1
    while up_to not in planned.computed:
        up_to += 1
    return tuple(sorted(at for at in planned.computed if at <= up_to))


def _skipped_kind(planned: PlannedRequest) -> str:
    """Return the kind of its skipped steps; of several, one that runs more of the model."""
    sources = {OPERATORS[name].source for name in planned.operators}
    return max(sources, default=COMPUTE, key=lambda source: source == "residual")
