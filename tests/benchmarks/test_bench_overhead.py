"""What a request through Triton takes more, from runs whose times are made up or drift."""

import numpy as np
import pytest

from benchmarks.bench_overhead import Quadruple, Run, hodges_lehmann, quadruples, summary


def way(added_s, per_step_s, clock):
    """A way whose requests take longer and longer, as on a machine that slows down, and by that much longer again."""

    def run(request):
        clock[0] += 0.1
        own_s = 0.2 + 0.1 * request.num_inference_steps + clock[0]
        return Run(own_s + added_s + per_step_s * request.num_inference_steps, own_s, own_s)

    return run


def test_what_is_added_to_a_request_and_to_a_step_is_told_apart_from_drift():
    clock = [0.0]
    found = quadruples((way(0.0, 0.0, clock), way(0.005, 0.001, clock)), (1, 9), seconds=0.001)
    values = summary(found, 50, {"full": 5.5, "fast": 1.1})
    assert values["added_s"] == pytest.approx({1: 0.006, 9: 0.014})
    full, fast = values["whole"]
    assert (full["added_s"], full["share"]) == pytest.approx((0.055, 0.01))
    assert (fast["share"], fast["low"], fast["high"]) == pytest.approx((0.05, 0.05, 0.05))
    assert values["outside_s"] == pytest.approx({1: 0.006, 9: 0.014})


def test_outliers_hardly_move_the_estimate_and_the_interval_covers_it():
    rng = np.random.default_rng(0)
    found = {count: [Quadruple(added, 0.0, 1.0, 0.0) for added in rng.normal(0.01, 0.02, 200)] for count in (1, 9)}
    found[1][:5] = [Quadruple(5.0, 0.0, 1.0, 0.0)] * 5
    (full,) = summary(found, 50, {"full": 6.0})["whole"]
    assert full["low"] < 0.01 / 6 < full["high"]
    assert full["high"] - full["low"] < 0.02


def test_the_estimate_is_the_median_of_all_means_of_two():
    assert hodges_lehmann(np.array([0.0, 1.0, 5.0])) == 1.75  # of 0, 0.5, 1, 2.5, 3, 5
