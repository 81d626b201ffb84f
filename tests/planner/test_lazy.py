from dataclasses import replace

import numpy as np
import pytest

from lemica_planner import CalibrationError, InfeasibleBudgetError, Sample, solve_all
from lemica_planner.calibrate import calibrate
from lemica_planner.candidates import Candidates
from lemica_planner.graph_file import load_graph
from lemica_planner.lazy import calibrate_lazily
from tests.planner.toy_replayer import ToyReplayer

SAMPLES = [Sample("a red cube", 0), Sample("a blue cube", 1)]
STEPS, SPAN = 24, 6
BUDGETS = [6, 8, 12]
ALL = ("residual", "residual-linear", "residual-fitted")


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.jsonl"


def run(journal, replayer=None, **options):
    known = {"max_span": SPAN, "budgets": BUDGETS, "journal": journal}
    return calibrate_lazily(replayer or ToyReplayer(STEPS), SAMPLES, **(known | options))


def exhaustive(journal, operators, **options):
    """Return the graph in which everything is measured: every budget's path over and over until none is new."""
    return run(journal, operators=operators, budgets=range(5, STEPS + 1), checks=10**6, confirm=0, **options)


def test_it_finds_the_plans_of_the_naive_graph(journal, tmp_path):
    truth = solve_all(calibrate(ToyReplayer(STEPS), SAMPLES, max_span=SPAN, journal=tmp_path / "naive"))
    entries = run(journal).entries()
    for budget in BUDGETS:
        assert entries[budget].predicted_error == pytest.approx(truth[budget].worst, rel=0.02)


def test_every_edge_on_the_wanted_paths_is_measured(journal):
    graph = run(journal, operators=ALL, confirm=0)
    weights = graph.weights()
    for budget in BUDGETS:
        on_path = graph.candidates.on_path(graph.entries()[budget].steps, weights)
        assert graph.measured[:, on_path].all()


def test_the_worst_edge_is_measured(journal):
    graph = run(journal, operators=ALL)
    weights = graph.weights()
    for budget in BUDGETS:
        on_path = graph.candidates.on_path(graph.entries()[budget].steps, weights)
        assert graph.measured[:, max(on_path, key=lambda at: weights[at])].all()


def test_it_costs_a_fraction(journal, tmp_path):
    naive, lazy = ToyReplayer(STEPS), ToyReplayer(STEPS)
    calibrate(naive, SAMPLES, max_span=SPAN, journal=tmp_path / "naive")
    run(journal, lazy, budgets=[8], checks=0)
    assert lazy.model.forwards < 0.4 * naive.model.forwards


def test_leaving_small_edges_estimated_costs_less(journal, tmp_path):
    exact, near = ToyReplayer(STEPS), ToyReplayer(STEPS)
    run(journal, exact, checks=0, confirm=0)
    run(tmp_path / "near", near, checks=0)
    assert near.model.forwards < exact.model.forwards


def test_more_operators_never_predict_a_worse_plan(journal, tmp_path):
    one = exhaustive(journal, ("residual",)).entries()
    every = exhaustive(tmp_path / "all", ALL).entries()
    assert all(every[budget].predicted_error <= one[budget].predicted_error * (1 + 1e-9) for budget in one)
    assert every[6].predicted_error < one[6].predicted_error
    assert any(entry.weights for entry in every.values())


def test_weights_are_those_of_the_path_as_it_runs(journal):
    """The last edge of a path that skips nothing before it is measured with just that history."""
    graph = exhaustive(journal, ("residual-linear",))
    session = ToyReplayer(STEPS).open(SAMPLES[0])
    slot = graph.candidates.slots[0, 3, 9, 12]
    segment = graph.candidates.segments[slot]
    assert segment.history == (6,)
    assert graph.measured[0, slot]
    assert graph.sample_errors[0, slot] == pytest.approx(session.errors([segment])[0])


def test_an_interrupted_run_goes_on_to_the_same_graph(journal, tmp_path):
    whole = run(tmp_path / "whole", operators=ALL)
    calls = 0
    while True:
        calls += 7
        try:
            graph = run(journal, ToyReplayer(STEPS, interrupt_after=calls), operators=ALL)
            break
        except KeyboardInterrupt:
            continue
    np.testing.assert_array_equal(graph.sample_errors, whole.sample_errors)
    assert graph.entries() == whole.entries()


def test_it_survives_a_file(journal, tmp_path):
    graph = run(journal, operators=ALL)
    graph.save(tmp_path / "graph.npz")
    again = load_graph(tmp_path / "graph.npz")
    assert again.entries() == graph.entries()
    assert (again.provenance, again.samples) == (graph.provenance, graph.samples)


def test_refined_paths_are_in_the_plan_and_in_the_file(journal, tmp_path):
    graph = run(journal, operators=ALL, refine=8)
    plain = run(journal, operators=ALL)
    assert set(graph.refined) == set(BUDGETS)
    graph.save(tmp_path / "graph.npz")
    again = load_graph(tmp_path / "graph.npz")
    assert again.entries() == graph.entries()
    assert all(again.entries()[budget].outcome > 0 for budget in BUDGETS)
    assert all(entry == plain.entries()[budget] for budget, entry in again.entries().items() if budget not in BUDGETS)


@pytest.mark.parametrize("options", [{}, {"refine": 8}, {"regret": 10.0, "operators": ("residual-fitted",)}])
def test_the_forwards_that_it_states_are_those_that_ran(journal, options):
    replayer = ToyReplayer(STEPS)
    stated = run(journal, replayer, **options).provenance.calibration
    assert stated["forwards"] + stated.get("refine_forwards", 0) == replayer.model.forwards
    assert ("refine_forwards" in stated) == ("refine" in options)


def test_checks_tell_how_far_off_the_estimates_are(journal):
    check = run(journal).provenance.calibration["check"]
    assert check["segments"] == 8
    assert 0.2 < check["median"] < 5


@pytest.mark.parametrize("risk", ["quantile:0.9", "cvar:0.5", "mean+1"])
def test_a_cautious_measure_predicts_more_than_the_mean(journal, tmp_path, risk):
    cautious, mean = exhaustive(journal, ("residual",), risk=risk), exhaustive(tmp_path / "mean", ("residual",))
    assert all(
        each.predicted_error > mean.entries()[budget].predicted_error
        for budget, each in cautious.entries().items()
        if each.predicted_error
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operators": ("magic",)}, "no operator .*magic"),
        ({"operators": ()}, "no operator"),
        ({"risk": "luck"}, "risk must be"),
        ({"budgets": []}, "budgets"),
        ({"max_span": 1}, "max_span"),
        ({"operators": ("residual-quadratic",)}, "look back one"),
    ],
)
def test_bad_options_are_refused(journal, options, message):
    with pytest.raises(CalibrationError, match=message):
        run(journal, **options)


def test_an_infeasible_budget_is_refused_before_any_replay(journal):
    replayer = ToyReplayer(STEPS)
    with pytest.raises(InfeasibleBudgetError, match="smallest feasible budget is 5"):
        run(journal, replayer, budgets=[4, 8])
    assert not replayer.calls


def test_it_stops_when_more_samples_would_not_change_much(journal, tmp_path):
    """With any regret allowed two samples are enough; with next to none all are used, as without the option."""
    samples = [Sample(f"cube {seed}", seed) for seed in range(5)]
    known = {"max_span": SPAN, "budgets": BUDGETS}
    graphs = [
        calibrate_lazily(ToyReplayer(STEPS), samples, journal=tmp_path / str(regret), regret=regret, **known)
        for regret in (9.0, 1e-12, 0.0)
    ]
    assert [len(graph.samples) for graph in graphs] == [2, 5, 5]
    steps = [{budget: entry.steps for budget, entry in graph.entries().items()} for graph in graphs[1:]]
    assert steps[0] == steps[1]
    assert graphs[0].provenance.calibration["forwards"] < graphs[2].provenance.calibration["forwards"]


def test_the_file_does_not_depend_on_the_order_in_which_products_came(journal, tmp_path):
    """Parts come from a set, whose order changes from process to process."""
    graph = run(journal, operators=("residual-fitted",))
    known = graph.candidates
    gram = known.grams["residual"]
    for name, grams in (("one", {"a": gram, "residual": gram}), ("other", {"residual": gram, "a": gram})):
        candidates = Candidates(known.num_steps, known.max_span, known.operators, grams)
        replace(graph, candidates=candidates).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
