import numpy as np
import pytest

from lemica_planner import PlanEntry, Sample
from lemica_planner.samplers import OWN, Way, parse_sampler
from lemica_planner.step_choice import Comparison

SAMPLES = tuple(Sample("a", seed) for seed in range(4))
FULL = Way(OWN, 9)
PLAIN, BETTER = Way(parse_sampler("ddim"), 3), Way(parse_sampler("unipc"), 3)
CACHED, LINEAR = (
    Way(parse_sampler("ddim"), 9, PlanEntry((0, 4, 8), operators=(name,) * 2), "even")
    for name in ("residual", "residual-linear")
)
HELD = Way(parse_sampler("ddim"), 9, PlanEntry((0, 4, 8), operators=("noise",) * 2), "measured")
DEAR = Way(parse_sampler("unipc"), 5)


def compare(*rows, measure="latents_l1"):
    ways, values = zip(*rows, strict=True)
    values = np.array(values, float)
    return Comparison(ways, SAMPLES[: values.shape[1]], {("full", measure): values}, {"full": FULL})


def test_the_best_of_each_kind():
    known = compare((FULL, [0, 0]), (PLAIN, [5, 5]), (BETTER, [3, 5]), (CACHED, [4, 1]), (HELD, [2, 4]), (DEAR, [0, 0]))
    (choice,) = known.choices([3])
    assert {kind: known.ways[at] for kind, at in choice.best.items()} == {
        "fewer": BETTER,
        "timesteps": HELD,
        "uncached": HELD,
        "cached": CACHED,
    }


def test_more_is_better_for_some_measures():
    known = compare((PLAIN, [30, 30]), (BETTER, [40, 40]), (CACHED, [41, 43]), measure="psnr_db")
    (choice,) = known.choices([3])
    assert known.ways[choice.best["fewer"]] == BETTER
    assert choice.gain == pytest.approx(2)


def test_the_gain_is_on_samples_that_the_choice_did_not_see():
    """Each sample has the way that is best on the other three, which here is never its own best."""
    (choice,) = compare((PLAIN, [5, 5, 5, 5]), (CACHED, [0, 4, 4, 4]), (LINEAR, [4, 0, 4, 4])).choices([3])
    assert choice.gain == pytest.approx(5 - 4)
    assert choice.verdict == "yes"


@pytest.mark.parametrize(("cached", "verdict"), [([1, 2, 1, 2], "yes"), ([8, 9, 8, 9], "no"), ([1, 9, 1, 9], "open")])
def test_verdicts(cached, verdict):
    (choice,) = compare((PLAIN, [5, 5, 5, 5]), (CACHED, cached)).choices([3])
    assert choice.verdict == verdict
    assert choice.low <= choice.gain <= choice.high


def test_with_nothing_cached_nothing_is_said():
    (choice,) = compare((PLAIN, [5, 5]), (BETTER, [3, 5])).choices([3])
    assert choice.verdict == "open"


def test_a_cost_without_ways_has_no_choice():
    assert compare((PLAIN, [5, 5])).choices([4]) == []


def test_what_a_run_costs_is_no_measure_of_it():
    rows = np.ones((2, 2))
    known = Comparison((PLAIN, CACHED), SAMPLES[:2], {("run", "time_in_forwards"): rows}, {"full": FULL})
    assert known.choices([3]) == []
    assert known.to_dict([3], {})["ways"][0]["values"] == {"run": {"time_in_forwards": [1.0, 1.0]}}


def test_curves_hold_the_best_way_of_each_method():
    known = compare(
        (FULL, [0, 0]), (PLAIN, [5, 5]), (BETTER, [3, 4]), (CACHED, [4, 1]), (LINEAR, [9, 9]), (HELD, [2, 4])
    )
    rows = known.to_dict([3], {})["curves"]["full_latents_l1"]["rows"]
    assert {(row["method"], row["forwards"]): row["value"] for row in rows} == {
        ("fewer steps", 3): 3.5,
        ("fewer steps", 9): 0.0,
        ("chosen timesteps", 3): 3.0,
        ("residual", 3): 2.5,
        ("residual-linear", 3): 9.0,
    }
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
