from itertools import pairwise

import pytest

from lemica_planner import CachePlan, PlanFormatError, published_names, published_plan

BUDGETS = {
    "Wan2.1-T2V-1.3B": [14, 17, 20, 25],
    "Wan2.1-T2V-14B": [14, 17, 20, 25],
    "Wan2.1-I2V-14B": [14, 17, 20, 25],
    "HunyuanVideo-1.5": [10, 15, 20, 25],
    "Qwen-Image": [10, 17, 25],
}
LONGEST = {"HunyuanVideo-1.5": 8}  # 7 elsewhere


def test_every_published_model_is_here():
    assert list(published_names()) == list(BUDGETS)


@pytest.mark.parametrize("model", BUDGETS)
def test_it_is_a_plan_with_the_published_budgets(model):
    plan = published_plan(model)
    assert list(plan.entries) == BUDGETS[model]
    assert CachePlan.from_json(plan.to_json()) == plan
    assert (plan.provenance.model, plan.provenance.calibrated) == (model, False)
    assert plan.provenance.source == "github.com/UnicomAI/LeMiCa"
    assert {entry.predicted_error for entry in plan.entries.values()} == {None}


@pytest.mark.parametrize("model", BUDGETS)
def test_the_longest_reuse_is_the_authors(model):
    spans = [end - start for steps in published_plan(model).budgets.values() for start, end in pairwise(steps)]
    assert max(spans) == LONGEST.get(model, 7)


def test_a_list_written_out():
    plan = published_plan("Wan2.1-T2V-1.3B")
    assert plan.budgets[14] == (0, 1, 2, 3, 4, 5, 7, 10, 16, 23, 30, 37, 44, 49)
    assert published_plan("Wan2.1-I2V-14B").provenance.num_inference_steps == 40


def test_others_are_not_published():
    with pytest.raises(PlanFormatError, match="no plan is published for 'Latte'; published: Wan2"):
        published_plan("Latte")
