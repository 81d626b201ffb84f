import numpy as np
import pytest

from lemica_planner import ErrorGraph, InvalidGraphError, Sample, solve
from lemica_planner.calibrate import calibrate
from lemica_planner.confidence import confidence
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
    few, many = (confidence(noisy(samples, noise=0.5), BUDGETS) for samples in (3, 48))
    for less, more in zip(few, many, strict=True):
        assert less.regret > more.regret
        assert less.worst_high / less.worst_low > more.worst_high / more.worst_low
        assert less.samples_needed is None or less.samples_needed > 3


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
