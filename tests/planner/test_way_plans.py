import numpy as np
import pytest

from lemica_planner import Sample
from lemica_planner.forecast import fit_weights
from lemica_planner.lazy import calibrate_lazily
from lemica_planner.samplers import Way, parse_sampler
from lemica_planner.solver import uniform_steps
from lemica_planner.way_plans import Planning, chosen_timesteps, even_ways, measured_ways, span_for
from tests.planner.toy_replayer import ToyReplayer, ToySession
from tests.planner.toy_sampling import ToySamplingReplayer

SAMPLES = (Sample("a red cube", 0), Sample("a blue cube", 0))
BASE = Way(parse_sampler("ddim-trailing"), 9)


@pytest.fixture
def planning(tmp_path):
    return Planning(SAMPLES, tmp_path)


def test_even_ways_cost_what_they_should(planning):
    ways = list(even_ways(ToySamplingReplayer(), BASE, ["residual", "residual-linear"], [3, 5, 9, 12], planning))
    assert [(way.operator, way.cost, way.plan) for way in ways] == [
        ("residual", 3, "even"),
        ("residual", 5, "even"),
        ("residual-linear", 3, "even"),
        ("residual-linear", 5, "even"),
    ]
    assert all(way.entry.steps == uniform_steps(9, way.cost) for way in ways)


def test_even_weights_are_fitted_to_the_calibration_trajectories(planning):
    replayer = ToySamplingReplayer()
    (way,) = even_ways(replayer, BASE, ["residual-fitted"], [3], planning)
    gram = np.mean([ToySession(ToyReplayer(9).model, sample).grams()["residual"] for sample in SAMPLES], axis=0)
    assert way.entry.steps == (0, 4, 8)
    assert way.entry.weights[2] == fit_weights(gram, (0,), 2)
    assert way.entry.weights[6] == fit_weights(gram, (0, 4), 6)


def test_nothing_is_fitted_without_samples():
    names = ["residual", "residual-fitted"]
    assert [way.operator for way in even_ways(ToySamplingReplayer(), BASE, names, [3], None)] == ["residual"]


def test_measured_ways_are_the_plans_of_a_lazy_calibration(planning, tmp_path):
    (way,) = measured_ways(ToySamplingReplayer(), BASE, ["residual-linear"], [4], planning)
    replayer = ToyReplayer(9, scheduler="DDIMScheduler")
    options = {"max_span": span_for(9, [4]), "budgets": [4], "operators": ["residual-linear"], "checks": 0}
    graph = calibrate_lazily(replayer, SAMPLES, journal=tmp_path / "other", **options)
    assert way.entry == graph.entries()[4]
    assert planning.journal(BASE).exists()
    assert list(measured_ways(ToySamplingReplayer(), BASE, ["residual"], [9], planning)) == []


def test_edges_are_long_enough_for_uneven_plans_of_the_smallest_budget():
    assert span_for(50, [25, 10, 8]) == 10
    assert span_for(4, [3]) == 2
    assert span_for(9, [2]) == 8


def test_timesteps_of_a_plan_for_another_sampler(planning):
    (way,) = even_ways(ToySamplingReplayer(), BASE, ["residual"], [3], planning)
    other = chosen_timesteps(ToySamplingReplayer(), way, parse_sampler("dpmsolver++"))
    assert other.sampler.timesteps == (889, 445, 1)
    assert (other.kind, other.cost) == ("timesteps", 3)
    assert other.sampler.scheduler == "DPMSolverMultistepScheduler"
