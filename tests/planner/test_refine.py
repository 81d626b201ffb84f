import numpy as np
import pytest

from lemica_planner import CachePlan
from lemica_planner.expected_work import ExpectedWork
from lemica_planner.journal import Journal
from lemica_planner.measuring import LocalRunner, Measurer, Meter
from lemica_planner.refine import Refiner, is_better
from tests.planner.test_lazy import SAMPLES, STEPS, run
from tests.planner.toy_replayer import ToyReplayer

BUDGETS = (6, 8, 12)


@pytest.fixture
def graph(tmp_path):
    return run(tmp_path / "journal.jsonl", operators=("residual", "residual-fitted"))


@pytest.fixture
def measurer(tmp_path):
    replayer = ToyReplayer(STEPS)
    runner = LocalRunner(replayer, keep=2)
    with Journal(tmp_path / "refine.jsonl", replayer.provenance()) as journal:
        yield Measurer(runner, journal, Meter(STEPS))


def refiner(graph, measurer, evaluations):
    known = graph.candidates
    work = ExpectedWork(measurer, STEPS, known.max_span, known.operators, BUDGETS, checks=0, refine=evaluations)
    return Refiner(graph, measurer, work)


@pytest.mark.parametrize("budget", BUDGETS)
def test_it_is_never_worse_than_the_minimax_path_on_the_calibration_set(graph, measurer, budget):
    refined = refiner(graph, measurer, 12).refine(budget)
    minimax = measurer.outcomes(SAMPLES, [graph.entries()[budget]]).mean()
    assert refined.budget == budget
    assert refined.outcome <= minimax
    assert refined.outcome == measurer.outcomes(SAMPLES, [refined]).mean()


def test_more_evaluations_find_better_paths(graph, measurer):
    few, many = (sum(refiner(graph, measurer, count).refine(budget).outcome for budget in BUDGETS) for count in (1, 60))
    assert many < few


def test_both_scores_are_in_the_plan(graph, measurer):
    refined = refiner(graph, measurer, 4).refine(8)
    plan = CachePlan(provenance=graph.provenance, entries={8: refined})
    again = CachePlan.from_json(plan.to_json()).resolve(8)
    assert again == refined
    assert again.outcome > 0
    assert again.predicted_error > 0


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        ([0.9, 1.8, 2.7], True),  # a tenth off every sample
        ([0.2, 2.1, 3.1], False),  # one sample won much, the others lost
        ([1.1, 2.0, 2.2], False),  # lower on average, but not for sure
        ([1.0, 2.0, 3.0], False),
    ],
)
def test_one_lucky_sample_is_not_enough(trial, expected):
    assert is_better(np.array(trial), np.array([1.0, 2.0, 3.0]), "mean") is expected


def test_one_sample_alone_decides():
    assert is_better(np.array([0.9]), np.array([1.0]), "mean")
