from dataclasses import replace

import numpy as np
import pytest

from lemica_planner import ErrorGraph, InvalidGraphError, Sample, solve, solve_all
from lemica_planner.calibrate import calibrate
from lemica_planner.confidence import _solve, confidence, largest_regret
from tests.planner.test_lazy import run
from tests.planner.toy_replayer import ToyReplayer

BUDGETS = (6, 8)


def graph_of(errors):
    return ErrorGraph(errors.mean(axis=0), errors)


def noisy(samples, noise, steps=14, span=5, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.random((steps, steps)) + 0.1
    errors = base * np.exp(noise * rng.normal(size=(samples, steps, steps)))
    start, end = np.indices((steps, steps))
    errors[:, (end <= start) | (end > start + span)] = np.inf
    errors[:, end == start + 1] = 0
    return graph_of(errors)


def test_samples_that_agree_leave_no_doubt():
    for found in confidence(noisy(samples=4, noise=0), BUDGETS):
        assert (found.agreement, found.regret, found.samples_needed) == (1, 0, 4)
        assert found.worst_low == pytest.approx(found.worst_high)


def test_noise_makes_doubt_and_samples_remove_it():
    """Summed over graphs and budgets: a single path may have a worst edge that is luckily narrow."""
    few, many = (
        [found for seed in range(3) for found in confidence(noisy(samples, noise=0.5, seed=seed), BUDGETS)]
        for samples in (3, 48)
    )
    assert all(found.agreement < 1 for found in few)
    assert sum(found.agreement for found in few) < 0.8 * sum(found.agreement for found in many)
    assert sum(found.regret for found in few) > 5 * sum(found.regret for found in many)
    assert np.prod([found.worst_high / found.worst_low for found in few]) > 1.5 * np.prod(
        [found.worst_high / found.worst_low for found in many]
    )
    assert all(found.samples_needed is None or found.samples_needed > 3 for found in few)


def disagreeing():
    """Return two samples' errors of two paths: the first wants (0, 1, 3); the second, and the mean, (0, 2, 3)."""
    errors = np.full((2, 4, 4), np.inf)
    errors[:, range(3), range(1, 4)] = 0
    errors[:, 1, 3], errors[:, 0, 2] = (1, 4), (3, 1)
    return errors


def test_two_samples_that_disagree_are_doubted_as_worked_out_by_hand():
    """A quarter of the draws is the first sample alone: it chooses the other path, and ours is 3 there, its own 1."""
    graph = graph_of(disagreeing())
    (found,) = confidence(graph, [3])
    assert solve(graph, 3).steps == (0, 2, 3)
    assert found.agreement == pytest.approx(0.75, abs=0.1)
    assert found.regret == pytest.approx(2 * (1 - found.agreement))
    assert (found.worst_low, found.worst_high) == (1, 3)


def test_the_samples_that_are_needed_are_those_of_two_calibrations_that_agree():
    """One of n samples is wrong if more than 0.6 of them are the first: one in seven at n = 8, one in 90 at 128."""
    errors = disagreeing()
    (doubted,), (sure,) = (confidence(graph_of(some), [3]) for some in (errors, errors[[1, 1]]))
    assert doubted.samples_needed in (16, 32, 64, 128)
    assert sure.samples_needed == 2


def test_the_interval_holds_the_weight():
    graph = noisy(samples=12, noise=0.3)
    for found in confidence(graph, BUDGETS):
        assert found.worst_low < solve(graph, found.budget).worst < found.worst_high


def test_it_takes_either_kind_of_graph(tmp_path):
    samples = [Sample("a red cube", seed) for seed in range(3)]
    naive = calibrate(ToyReplayer(14), samples, max_span=5, journal=tmp_path / "naive")
    lazy = run(tmp_path / "lazy", operators=("residual", "residual-fitted"))
    for graph in (naive, lazy):
        assert [found.budget for found in confidence(graph, BUDGETS)] == list(BUDGETS)


def test_one_sample_says_nothing():
    with pytest.raises(InvalidGraphError, match="two samples or more; the graph has 1"):
        confidence(noisy(samples=1, noise=0), BUDGETS)


@pytest.fixture(scope="module")
def lazy(tmp_path_factory):
    journal = tmp_path_factory.mktemp("lazy") / "journal.jsonl"
    return run(journal, operators=("residual", "residual-linear", "residual-fitted"))


def test_the_whole_calibration_drawn_once_chooses_the_plan(lazy):
    """With the history that each edge was measured with: the plain graph of best histories chooses other steps."""
    plan, chosen = lazy.entries(), _solve(lazy)(np.arange(len(lazy.samples)))
    assert {budget: chosen.steps(budget) for budget in plan} == {budget: entry.steps for budget, entry in plan.items()}
    assert [chosen.worst(entry.steps) for entry in plan.values()] == pytest.approx(
        [entry.predicted_error for entry in plan.values()]
    )
    plain = solve_all(lazy.to_error_graph())
    assert any(plain[budget].steps != entry.steps for budget, entry in plan.items())


def test_a_refined_path_does_not_change_what_draws_say_of_the_minimax_one(lazy):
    other = lazy.entry((*range(7), *range(10, lazy.num_steps, 2), lazy.num_steps - 1), lazy.weights())
    refined = replace(lazy, refined={other.budget: other})
    assert refined.entries()[other.budget].steps != lazy.entries()[other.budget].steps
    assert confidence(refined, [other.budget]) == confidence(lazy, [other.budget])


def test_the_largest_regret_is_that_of_the_confidence(lazy):
    assert largest_regret(lazy, [6, 8]) == pytest.approx(max(each.regret for each in confidence(lazy, [6, 8])))
