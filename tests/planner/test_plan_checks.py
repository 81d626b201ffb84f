import json

import numpy as np
import pytest

from lemica_planner import CachePlan, PlanFormatError, Sample
from lemica_planner.lazy import calibrate_lazily
from tests.planner.toy_replayer import WIDTH, ToyReplayer, toy_graph

STEPS = 12
SAMPLES = [Sample("a red cube", 0), Sample("a blue cube", 1)]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    journal = tmp_path_factory.mktemp("toy") / "journal.jsonl"
    operators = ("residual-fitted",)
    return CachePlan.from_graph(
        calibrate_lazily(ToyReplayer(STEPS), SAMPLES, max_span=4, budgets=[6, 8], journal=journal, operators=operators)
    )


def test_the_usual_miss_is_what_the_forecasts_miss_on_the_calibration_samples(plan):
    replayer = ToyReplayer(STEPS)
    residuals = [np.concatenate(replayer.open(sample).residuals) for sample in SAMPLES]
    for steps, check in plan.checks.items():
        *known, step = steps
        missed = [rows[step] - np.asarray(check.weights) @ rows[known] for rows in residuals]
        assert np.sqrt(np.mean(np.square(missed))) == pytest.approx(check.usual, rel=1e-3)
        assert np.concatenate(missed).size == WIDTH * len(SAMPLES)


def test_every_computed_step_but_the_first_has_a_check(plan):
    for entry in plan.entries.values():
        wanted = {entry.steps[at : at + 3] for at in range(len(entry.steps) - 2)}
        assert {entry.steps[:2], *wanted} <= plan.checks.keys()


def test_checks_survive_json(plan):
    assert CachePlan.from_json(plan.to_json()) == plan
    assert CachePlan.from_json(plan.to_json(pretty=True)) == plan


def test_plain_reuse_has_none():
    plan = CachePlan.from_graph(toy_graph())
    assert not plan.checks
    assert "checks" not in json.loads(plan.to_json())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("3,2,5", {"part": "cond", "usual": 1.0, "weights": [1, 0]}, "ascending steps"),
        ("5", {"part": "cond", "usual": 1.0, "weights": []}, "ascending steps"),
        ("a,5", {"part": "cond", "usual": 1.0, "weights": [1]}, "ascending steps"),
        ("2,5", {"part": "cond", "usual": 0, "weights": [1]}, "usual miss > 0"),
        ("2,5", {"part": "cond", "usual": 1.0, "weights": [1, 2]}, "a finite weight for each step"),
        ("2,5", {"part": 7, "usual": 1.0, "weights": [1]}, "the name of a part"),
        ("2,5", {"part": "cond", "usual": 1.0}, "lacks the keys"),
    ],
)
def test_broken_checks_are_refused(plan, key, value, message):
    data = json.loads(plan.to_json()) | {"checks": {key: value}}
    with pytest.raises(PlanFormatError, match=message):
        CachePlan.from_json(json.dumps(data))
