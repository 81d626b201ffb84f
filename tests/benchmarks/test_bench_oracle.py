"""The search over all paths, on the toy model: the best path is the best, and nothing runs twice."""

from functools import partial

import numpy as np
import pytest

from benchmarks.bench_oracle import all_paths, compare, run_paths
from lemica_planner import Sample
from lemica_planner.journal import Journal
from lemica_planner.lazy import calibrate_lazily
from lemica_planner.measuring import LocalRunner, Measurer, Meter
from tests.planner.toy_replayer import ToyReplayer

STEPS, BUDGETS = 7, [3, 4]
SAMPLES = [Sample("a red cube", 0), Sample("a blue cube", 1)]


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.jsonl"


@pytest.fixture
def graph(journal):
    known = {"max_span": STEPS - 1, "budgets": BUDGETS, "journal": journal, "confirm": 0, "refine": 4}
    return calibrate_lazily(ToyReplayer(STEPS), SAMPLES, **known)


def measured(journal, replayer, use):
    runner = LocalRunner(replayer, keep=len(SAMPLES))
    with Journal(journal, replayer.provenance()) as records, Measurer(runner, records, Meter(STEPS)) as measurer:
        return use(measurer)


def test_there_are_as_many_paths_as_choices_of_inner_steps():
    assert len(all_paths(10, 5)) == 56
    assert all_paths(4, 3) == [(0, 1, 3), (0, 2, 3)]


def test_places_and_ratios_are_those_of_all_outcomes(journal, graph):
    rows = measured(journal, ToyReplayer(STEPS), lambda measurer: list(compare(graph, measurer, BUDGETS)))
    assert {row["method"] for row in rows} >= {"minimax", "shortest", "uniform"}
    for budget in BUDGETS:
        paths = all_paths(STEPS, budget)
        outcomes = measured(journal, ToyReplayer(STEPS), partial(run_paths, graph=graph, paths=paths))
        session = [ToyReplayer(STEPS).open(sample) for sample in SAMPLES]
        entry = graph.entry(paths[0], graph.weights())
        assert outcomes[paths[0]] == pytest.approx(np.mean([each.outcomes([entry])[0] for each in session]))
        for row in (row for row in rows if row["budget"] == budget):
            assert row["paths"] == len(paths)
            assert row["over_best"] == pytest.approx(
                sorted(outcomes.values())[row["place"] - 1] / min(outcomes.values())
            )


def test_what_ran_does_not_run_again(journal, graph):
    measured(journal, ToyReplayer(STEPS), lambda measurer: list(compare(graph, measurer, BUDGETS)))
    again = ToyReplayer(STEPS)
    measured(journal, again, lambda measurer: list(compare(graph, measurer, BUDGETS)))
    assert not again.sessions
