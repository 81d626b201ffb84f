"""The paths that table 3 compares, and whose graph is whose."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.paper.table3 import drawn_from, graphs_of, joined, make_trial, rivals
from lemica_planner import CalibrationError, InfeasibleBudgetError, PlanMismatchError, Sample, evaluate, solve
from lemica_planner.calibrate import calibrate
from lemica_planner.lazy import calibrate_lazily
from tests.planner.toy_replayer import ToyReplayer, toy_graph, toy_provenance

SAMPLES = [Sample("a red cube", 0), Sample("a blue cube", 1)]
BUDGETS = [4, 5, 7]


def toy_opened(folder, **stated):
    info = SimpleNamespace(weights_hash=toy_provenance(**stated).weights_hash)
    replayer = SimpleNamespace(provenance=lambda: toy_provenance(**stated))
    return SimpleNamespace(
        folder=folder, name=folder.name, num_steps=9, model=SimpleNamespace(info=info), replayer=lambda: replayer
    )


class Hashable(SimpleNamespace):
    __hash__ = object.__hash__


@pytest.fixture
def opened(tmp_path):
    return Hashable(**vars(toy_opened(tmp_path)))


@pytest.fixture(scope="module")
def operator_graph(tmp_path_factory):
    journal = tmp_path_factory.mktemp("toy") / "journal.jsonl"
    operators = ("residual", "residual-linear", "residual-fitted")
    return calibrate_lazily(
        ToyReplayer(9), SAMPLES, max_span=4, budgets=BUDGETS, journal=journal, operators=operators, confirm=0
    )


def test_each_path_is_best_by_its_own_measure():
    graph = toy_graph()
    found = rivals(graph, BUDGETS)
    for budget in BUDGETS:
        minimax, shortest = (evaluate(graph, found[method][budget].steps) for method in ("minimax", "shortest"))
        assert minimax.worst <= shortest.worst
        assert shortest.total <= minimax.total
    assert any(found["minimax"][budget] != found["shortest"][budget] for budget in BUDGETS)


def test_the_naive_graphs_operator_is_stated():
    assert rivals(toy_graph(), [4])["minimax"][4].operators == ("residual",) * 3


def test_an_operator_graphs_paths_have_their_operators(operator_graph):
    found = rivals(operator_graph, BUDGETS)
    assert found["minimax"] == {budget: operator_graph.entries()[budget] for budget in BUDGETS}
    for budget in BUDGETS:
        minimax, shortest = found["minimax"][budget], found["shortest"][budget]
        assert minimax.errors[0] <= shortest.errors[0]
        assert sum(shortest.errors) <= sum(minimax.errors) + 1e-12


@pytest.mark.parametrize("kind", ["plain", "operator"])
def test_a_budget_without_a_path_is_refused(kind, operator_graph):
    with pytest.raises(InfeasibleBudgetError):
        rivals(toy_graph() if kind == "plain" else operator_graph, [2])


def test_cases_of_a_graph_and_uniform_skipping(opened):
    trial = make_trial(opened, {"": [toy_graph()], "lazy": [toy_graph()]}, [4, 7])
    methods = ["minimax", "shortest", "lazy minimax", "lazy shortest", "uniform"]
    assert [(case.method, case.budget) for case in trial.cases] == [(name, at) for at in (4, 7) for name in methods]
    assert trial.pairs[:2] == [("minimax", "shortest"), ("lazy minimax", "lazy shortest")]


def test_a_graph_goes_to_the_model_of_its_weights(tmp_path, opened):
    toy_graph().save(tmp_path / "graph.npz")
    other = Hashable(**vars(toy_opened(tmp_path, weights_hash="sha256:1")))
    with pytest.raises(CalibrationError, match="naive"):
        graphs_of([opened, other], [f"lazy={tmp_path / 'graph.npz'}"])
    found = graphs_of([opened], [f"lazy={tmp_path / 'graph.npz'}"])
    assert list(found[opened]) == ["lazy"]
    with pytest.raises(CalibrationError, match="weights of one of the models"):
        graphs_of([other], [f"lazy={tmp_path / 'graph.npz'}"])


def test_the_naive_graph_is_found(tmp_path, opened):
    (tmp_path / "calibration").mkdir()
    toy_graph().save(tmp_path / "calibration" / "naive.npz")
    ((graph,),) = graphs_of([opened], [])[opened].values()
    np.testing.assert_array_equal(graph.weights, toy_graph().weights)


def test_the_naive_graphs_samples_are_dealt_out_to_the_draws(tmp_path, opened):
    samples = [Sample("a cube", seed) for seed in range(5)]
    graph = calibrate(ToyReplayer(9), samples, max_span=4, journal=tmp_path / "journal")
    graph.save(tmp_path / "naive.npz")
    (drawn,) = graphs_of([opened], [], naive=[tmp_path / "naive.npz"], draws=2)[opened].values()
    alone = calibrate(ToyReplayer(9), samples[1::2], max_span=4, journal=tmp_path / "journal")
    np.testing.assert_allclose(drawn[1].weights, alone.weights, rtol=1e-6)
    cases = {(case.method, case.budget): case for case in make_trial(opened, {"": drawn}, BUDGETS).cases}
    own = tuple(solve(each, 5).steps for each in drawn)
    assert tuple(entry.steps for entry in cases["minimax", 5].entries) == own
    assert len(cases["uniform", 5].entries) == 1


def test_naive_graphs_that_are_given_together_count_as_one(tmp_path, opened):
    samples = [Sample("a cube", seed) for seed in range(3)]
    whole = calibrate(ToyReplayer(9), samples, max_span=4, journal=tmp_path / "journal")
    parts = [
        calibrate(ToyReplayer(9), some, max_span=4, journal=tmp_path / "journal")
        for some in ([*samples[:2]], samples[2:])
    ]
    for number, part in enumerate(parts):
        part.save(tmp_path / f"{number}.npz")
    ((graph,),) = graphs_of([opened], [], naive=[tmp_path / "0.npz", tmp_path / "1.npz"])[opened].values()
    np.testing.assert_allclose(graph.weights, whole.weights, rtol=1e-6)
    assert graph.samples == whole.samples
    assert graph.provenance.weights_hash == whole.provenance.weights_hash
    with pytest.raises(CalibrationError, match="share samples"):
        joined([parts[0], whole])
    shorter = calibrate(ToyReplayer(9), samples[2:], max_span=3, journal=tmp_path / "journal")
    with pytest.raises(CalibrationError, match="the same edges"):
        joined([parts[0], shorter])


def test_a_naive_graph_of_no_model_is_refused(tmp_path, opened):
    toy_graph().save(tmp_path / "naive.npz")
    other = Hashable(**vars(toy_opened(tmp_path, weights_hash="sha256:1")))
    with pytest.raises(CalibrationError, match="none of the models"):
        graphs_of([other], [], naive=[tmp_path / "naive.npz"])


def test_more_draws_than_samples_are_refused(operator_graph):
    for graph in (toy_graph(), operator_graph):
        with pytest.raises(CalibrationError, match="3 draws need a naive graph of as many samples"):
            drawn_from(graph, 3)


def test_a_graph_of_other_guidance_is_refused(tmp_path):
    with pytest.raises(PlanMismatchError, match="guidance_scale"):
        make_trial(toy_opened(tmp_path, guidance_scale=2.0), {"": [toy_graph()]}, [4])
