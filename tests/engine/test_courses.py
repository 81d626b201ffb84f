"""What a budget, or a range of budgets, allows."""

import pytest

from lemica_backend.config import ModelConfig
from lemica_backend.courses import courses_of
from lemica_backend.errors import InvalidRequestError
from lemica_backend.planned import plan_request
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, PlanEntry, Provenance, UnknownBudgetError

STEPS = 6
PATHS = {2: (0, 5), 3: (0, 2, 5), 4: (0, 1, 3, 5), 5: (0, 1, 2, 3, 5)}
NAMES = {"fast": 3, "slow": 4}


def plan(errors=None, names=NAMES):
    entries = {
        budget: PlanEntry(steps, (errors[budget], *[0.0] * (budget - 2)) if errors else None)
        for budget, steps in PATHS.items()
    }
    return CachePlan(provenance=Provenance(num_inference_steps=STEPS), entries=entries, names=names)


def budgets(text, **options):
    return [course.budget for course in courses_of(text, plan(**options))]


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("fast", [3]),
        ("4", [4]),
        ("full", [6]),
        ("fast..slow", [3, 4]),
        ("2..5", [2, 3, 4, 5]),
        ("fast..full", [3, 4, 5, 6]),
        (" 3 .. slow ", [3, 4]),
        ("4..4", [4]),
        ("full..full", [6]),
    ],
)
def test_a_range_allows_every_budget_of_the_plan_between_its_ends(text, allowed):
    assert budgets(text) == allowed


def test_a_course_is_what_the_plan_says():
    course = courses_of("fast..slow", plan({2: 4.0, 3: 3.0, 4: 2.0, 5: 1.0}))[1]
    assert (course.computed, sorted(course.reuse), course.predicted_error) == ({0, 1, 3, 5}, [2, 4], 2.0)


def test_what_is_predicted_worse_than_the_floor_is_left_out():
    assert budgets("3..full", errors={2: 9.0, 3: 3.0, 4: 3.5, 5: 1.0}) == [3, 5, 6]


def test_a_range_upside_down_is_refused_with_both_ends():
    with pytest.raises(InvalidRequestError, match="slow has 4 computed steps and fast only 3"):
        budgets("slow..fast")


@pytest.mark.parametrize("text", ["fast..", "..slow", "fast..quick", "1..4", "..", "fast...slow"])
def test_ends_that_the_plan_does_not_hold_are_refused(text):
    with pytest.raises(UnknownBudgetError):
        budgets(text)


def test_a_name_with_dots_is_a_name():
    assert budgets("a..b", names={"a..b": 5}) == [5]


def planned(model, budget, **options):
    config = ModelConfig.model_validate({"defaults": {"num_inference_steps": STEPS}})
    return plan_request(GenerationRequest("a", budget=budget), info=model.info, config=config, plan=plan(**options))


def test_a_request_starts_on_the_largest_course_and_may_change(model):
    request = planned(model, "fast..full")
    assert (request.computed, request.is_range, request.operators) == (frozenset(range(STEPS)), True, {"residual"})
    other = request.on(request.courses[0])
    assert (other.computed, sorted(other.reuse), other.courses) == ({0, 2, 5}, [1, 3, 4], request.courses)


def test_a_request_for_full_keeps_nothing_for_other_courses(model):
    assert planned(model, "full").operators == frozenset()


def test_what_is_left_by_kind(model):
    request = planned(model, "fast")  # 0, 2 and 5
    assert [dict(left) for left in request.steps_left] == [
        {"compute": 3, "residual": 3},
        {"compute": 2, "residual": 3},
        {"compute": 2, "residual": 2},
        {"compute": 1, "residual": 2},
        {"compute": 1, "residual": 1},
        {"compute": 1},
        {},
    ]
    assert request.ticks_to_compute == (0, 1, 0, 2, 1, 0, 0)
