import dataclasses
import json
import pickle

import pytest

from lemica_planner import (
    CachePlan,
    ErrorGraph,
    InfeasibleBudgetError,
    PlanEntry,
    PlanFormatError,
    PlanMismatchError,
    Provenance,
    UnknownBudgetError,
    solve_all,
)
from lemica_planner.plan import default_names
from tests.planner.brute_force import random_graphs
from tests.planner.toy_replayer import toy_graph, toy_provenance


@pytest.fixture
def plan():
    return CachePlan.from_graph(toy_graph(), names={"slow": 6, "fast": 3})


def test_it_holds_what_the_solver_finds(plan):
    for budget, found in solve_all(toy_graph()).items():
        entry = plan.entries[budget]
        assert (entry.steps, entry.errors, entry.predicted_error) == (found.steps, found.errors, found.worst)


@pytest.mark.parametrize("pretty", [False, True])
def test_round_trip_is_exact(plan, pretty):
    text = plan.to_json(pretty=pretty)
    again = CachePlan.from_json(text)
    assert again == plan
    assert again.to_json(pretty=pretty) == text
    assert again.plan_id == plan.plan_id


def test_random_plans_survive_a_round_trip():
    for random in random_graphs(3, 100):
        plan = CachePlan.from_graph(random)
        assert CachePlan.from_json(plan.to_json()) == plan
        assert CachePlan.from_json(plan.to_json(pretty=True)) == plan


def test_it_survives_pickling(plan):
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_budgets_are_names_and_numbers(plan):
    assert set(plan.budgets) == {"slow", "fast", 3, 4, 5, 6, 7, 8, 9}
    assert plan.budgets["fast"] == plan.budgets[3] == plan.entries[3].steps


@pytest.mark.parametrize(("budget", "number"), [("slow", 6), ("fast", 3), ("4", 4), (" 4 ", 4), (5, 5)])
def test_resolve(plan, budget, number):
    assert plan.resolve(budget) is plan.entries[number]


def test_full_is_every_step(plan):
    assert plan.resolve("full") == PlanEntry(tuple(range(9)), (0.0,) * 8)


@pytest.mark.parametrize("budget", ["medium", "2", "10", "", "-3", "3.0", "²", "٣", "Fast"])
def test_unknown_budgets_list_what_there_is(plan, budget):
    with pytest.raises(UnknownBudgetError, match=r"available: full, slow \(= 6\), fast \(= 3\), 3, 4, 5, 6, 7, 8, 9"):
        plan.resolve(budget)


def test_the_plan_id_depends_on_everything(plan):
    other = dataclasses.replace(plan, provenance=dataclasses.replace(plan.provenance, width=99))
    assert len({plan.plan_id, other.plan_id, dataclasses.replace(plan, names={}).plan_id}) == 3
    assert len(plan.plan_id) == 12


def test_default_names():
    assert CachePlan.from_graph(toy_graph(30, 8)).names == {"slow": 15, "medium": 10, "fast": 6}
    assert default_names(50, range(8, 51)) == {"slow": 25, "medium": 17, "fast": 10}
    assert default_names(50, [2, 18, 50]) == {"slow": 50, "medium": 18, "fast": 18}
    assert default_names(2, [2]) == {"slow": 2, "medium": 2, "fast": 2}


def test_a_graph_without_provenance_states_its_steps_only():
    plan = CachePlan.from_graph(ErrorGraph(toy_graph().weights))
    assert plan.provenance == Provenance(num_inference_steps=9, metric=None)


def test_some_budgets_only():
    plan = CachePlan.from_graph(toy_graph(30, 8), budgets=[6, 15])
    assert list(plan.entries) == [6, 15]
    assert plan.names == {"slow": 15, "fast": 6}
    with pytest.raises(InfeasibleBudgetError, match="smallest feasible budget is 5"):
        CachePlan.from_graph(toy_graph(30, 8), budgets=[2])


def test_from_steps():
    plan = CachePlan.from_steps(toy_provenance(), {3: [0, 4, 8], "slow": (0, 2, 4, 8)}, names={"fast": 3})
    assert plan.budgets == {"slow": (0, 2, 4, 8), "fast": (0, 4, 8), 3: (0, 4, 8), 4: (0, 2, 4, 8)}
    assert plan.entries[3].predicted_error is None
    assert CachePlan.from_json(plan.to_json()) == plan
    assert CachePlan.from_steps(plan.provenance, plan.budgets) == plan


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({}, "at least one budget"),
        ({4: [0, 4, 8]}, "budget 4 has 3 steps"),
        ({3: [0, 4, 7]}, "must end at the last step, 8; got 7"),
        ({3: [1, 4, 8]}, "begin with 0"),
        ({4: [0, 4, 4, 8]}, "ascend strictly"),
        ({4: [0, 5, 4, 8]}, "ascend strictly"),
        ({1: [0]}, "two or more"),
        ({3: [0, 4.0, 8]}, "must be integers"),
        ({3: [0, True, 8]}, "must be integers"),
        ({"a": [0, 4, 8], "b": [0, 5, 8]}, "two different lists have 3 steps"),
        ({"full": [0, 4, 8]}, "not be 'full'"),
        ({"7": [0, 4, 8]}, "begin with a letter"),
        ({"a b": [0, 4, 8]}, "begin with a letter"),
    ],
)
def test_steps_are_checked(steps, message):
    with pytest.raises(PlanFormatError, match=message):
        CachePlan.from_steps(toy_provenance(), steps)


def test_names_must_lead_to_a_budget(plan):
    with pytest.raises(PlanFormatError, match=r"names.fast must be a budget of the plan, one of \[3, 4.*got 2"):
        dataclasses.replace(plan, names={"fast": 2})


DELETE = object()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["extra"], 1, r"unknown keys \['extra'\]; allowed"),
        (["names"], DELETE, r"lacks the keys \['names'\]"),
        (["schema_version"], 2, "schema_version must be 1; got 2"),
        (["schema_version"], True, "schema_version"),
        (["names"], [], "names must be a JSON object"),
        (["names", "fast"], "3", "names.fast"),
        (["names", "fast"], True, "names.fast"),
        (["entries"], [], "entries must be a JSON object"),
        (["entries"], {}, "at least one budget"),
        (["entries", "03"], {}, "keyed by numbers"),
        (["entries", "x"], {}, "keyed by numbers"),
        (["entries", "3"], [], "entries.3 must be a JSON object"),
        (["entries", "3", "extra"], 1, "entries.3 has unknown keys"),
        (["entries", "3", "steps"], DELETE, r"entries.3 lacks the keys \['steps'\]"),
        (["entries", "3", "steps"], "048", "entries.3.steps must be a JSON array"),
        (["entries", "3", "steps"], [0, 2, 4, 8], "errors"),
        (["entries", "3", "steps"], [0, "4", 8], "must be integers"),
        (["entries", "3", "errors"], [0.1], "2 finite numbers"),
        (["entries", "3", "errors"], [0.1, 0.2], "largest to smallest"),
        (["entries", "3", "errors"], [0.1, -0.2], "finite numbers >= 0"),
        (["entries", "3", "errors"], [0.1, None], "must be numbers"),
        (["entries", "3", "predicted_error"], 0.5, "must be the largest of its errors"),
        (["provenance"], None, "provenance must be a JSON object"),
        (["provenance", "extra"], 1, "provenance has unknown keys"),
        (["provenance", "model"], DELETE, "provenance lacks the keys"),
        (["provenance", "model"], 3, r"provenance.model must be text or null; got 3 \(int\)"),
        (["provenance", "height"], "480", "provenance.height must be a positive integer"),
        (["provenance", "height"], 0, "provenance.height"),
        (["provenance", "height"], True, "provenance.height"),
        (["provenance", "height"], 4.0, "provenance.height"),
        (["provenance", "guidance_scale"], "3", "provenance.guidance_scale must be a finite number"),
        (["provenance", "num_inference_steps"], None, "provenance.num_inference_steps"),
        (["provenance", "num_inference_steps"], 1, "at least 2"),
        (["provenance", "num_inference_steps"], 10, "must end at the last step, 9"),
        (["provenance", "scheduler_config"], [], "provenance.scheduler_config"),
        (["provenance", "operator"], None, "provenance.operator must be text"),
        (["provenance", "calibrated"], 1, "provenance.calibrated must be true or false"),
    ],
)
def test_broken_json_is_refused(plan, path, value, message):
    data = json.loads(plan.to_json())
    *parents, last = path
    place = data
    for key in parents:
        place = place[key]
    if value is DELETE:
        del place[last]
    else:
        place[last] = value
    with pytest.raises(PlanFormatError, match=message):
        CachePlan.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 100_000])
def test_other_texts_are_refused(text):
    with pytest.raises(PlanFormatError):
        CachePlan.from_json(text)


def test_what_matches_is_served(plan):
    plan.require_match()
    plan.require_match(model="toy", height=3, guidance_scale=1, num_inference_steps=9)
    plan.require_match(scheduler_config={"shift": 3, "_class_name": "Euler"})


def test_every_difference_is_named(plan):
    with pytest.raises(PlanMismatchError) as caught:
        plan.require_match(model="toy", height=64, scheduler_config={"shift": 5.0, "order": 2})
    assert caught.value.differences == {
        "height": (3, 64),
        "scheduler_config.order": (None, 2),
        "scheduler_config.shift": (3.0, 5.0),
    }
    assert "height: plan 3, served 64" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_value_that_is_not_served_differs(plan):
    with pytest.raises(PlanMismatchError, match="scheduler_config"):
        plan.require_match(scheduler_config=None)


def test_what_is_not_stated_cannot_differ():
    plan = CachePlan.from_steps(Provenance(num_inference_steps=3), {2: (0, 2)})
    plan.require_match(model="any", height=1, scheduler_config={"a": 1})
    with pytest.raises(PlanMismatchError, match="num_inference_steps: plan 3, served 4"):
        plan.require_match(num_inference_steps=4)


def test_unknown_fields_cannot_be_matched(plan):
    with pytest.raises(TypeError, match=r"no fields \['hight'\]"):
        plan.require_match(hight=3)


def test_a_calibrated_provenance_states_everything():
    with pytest.raises(PlanFormatError, match=r"must state \['weights_hash', 'width'\]"):
        toy_provenance(calibrated=True, weights_hash=None, width=None)


def test_provenance_takes_a_deep_copy_of_json_values():
    config = {"sigmas": (1, 2), "nested": {"a": 1}}
    provenance = toy_provenance(scheduler_config=config, guidance_scale=3)
    config["nested"]["a"] = 2
    assert provenance.scheduler_config == {"sigmas": [1, 2], "nested": {"a": 1}}
    assert Provenance.from_dict(json.loads(json.dumps(provenance.to_dict()))) == provenance
    assert isinstance(provenance.guidance_scale, float)
    with pytest.raises(PlanFormatError, match="finite JSON values"):
        toy_provenance(scheduler_config={"a": float("nan")})
    with pytest.raises(PlanFormatError, match="finite JSON values"):
        toy_provenance(scheduler_config={"a": object()})


def test_the_block_engine_is_recorded_where_it_is_not_the_eager_one_and_never_compared():
    eager, other = (toy_provenance(), dataclasses.replace(toy_provenance(), block_engine="openvino"))
    assert "block_engine" not in eager.to_dict()  # plans and graphs from before stay as they are
    assert Provenance.from_dict(eager.to_dict()) == eager
    assert Provenance.from_dict(other.to_dict()).block_engine == "openvino"
    other.require_match(num_inference_steps=other.num_inference_steps, weights_hash=other.weights_hash)
    with pytest.raises(PlanFormatError, match="block_engine"):
        dataclasses.replace(eager, block_engine=3)
