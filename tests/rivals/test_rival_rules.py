"""Decision rules: by hand, and against the code of those who made them."""

import numpy as np
import pytest
import torch
from diffusers.hooks.hooks import StateManager
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheHook, TaylorSeerState

from benchmarks.rivals.magcache import Setting, mag_steps
from benchmarks.rivals.plans import PEAK_POWER, peak_powers
from benchmarks.rivals.taylorseer import forecasts, taylor_steps, taylor_weights
from benchmarks.rivals.teacache import TeaRule
from lemica_planner import ErrorGraph, Fill, shortest_path


def hook_decisions(num_steps, interval, warm_up):
    manager = StateManager(TaylorSeerState, init_kwargs={"taylor_factors_dtype": torch.float32, "max_order": 1})
    hook = TaylorSeerCacheHook(interval, warm_up, torch.float32, manager)
    with_context = type("Context", (), {"name": "x"})()
    manager.set_context(with_context)
    return tuple(step for step in range(num_steps) if hook._measure_should_compute()[0])


@pytest.mark.parametrize("interval", [2, 3, 5, 8])
@pytest.mark.parametrize("warm_up", [1, 3])
def test_taylorseer_computes_the_steps_that_diffusers_computes(interval, warm_up):
    assert taylor_steps(50, interval, warm_up) == hook_decisions(50, interval, warm_up)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("known", [[0], [0, 1], [0, 1, 4], [2, 5, 6, 10]])
def test_taylor_weights_predict_what_diffusers_predicts(order, known):
    values = torch.randn((len(known), 5), generator=torch.Generator().manual_seed(0))
    state = TaylorSeerState(taylor_factors_dtype=torch.float32, max_order=order)
    for step, value in zip(known, values, strict=True):
        state.current_step = step
        state.update((value,))
    state.current_step = known[-1] + 3
    last = known[-order - 1 :]
    weights = torch.tensor(taylor_weights(last, known[-1] + 3, order), dtype=torch.float32)
    torch.testing.assert_close(weights @ values[-len(last) :], state.predict()[0], rtol=1e-5, atol=1e-5)


def test_forecasts_use_what_is_computed_by_then():
    reuse = forecasts(6, computed=(0, 3), order=1)
    assert sorted(reuse) == [1, 2, 4, 5]
    assert reuse[2] == Fill("residual-linear", (1.0,))
    assert reuse[5].weights == pytest.approx((-2 / 3, 5 / 3))


def test_magcache_adds_up_errors_and_starts_afresh_after_a_computed_step():
    # products 0.9, 0.81 and errors 0.1, 0.29 at steps 1 and 2; step 2 is too much, then the same again
    ratios = [1.0] + [0.9] * 5
    assert mag_steps(ratios, Setting(threshold=0.28, max_skip=9, retention=0)) == (0, 2, 4)
    assert mag_steps(ratios, Setting(threshold=0.30, max_skip=9, retention=0)) == (0, 3)


def test_magcache_never_skips_more_than_it_may_nor_among_the_first():
    even = [1.0] * 10
    assert mag_steps(even, Setting(threshold=0.1, max_skip=2, retention=0)) == (0, 3, 6, 9)
    assert mag_steps(even, Setting(threshold=0.1, max_skip=9, retention=0.3)) == (0, 1, 2)


def decisions(rule, changes):
    return [rule.computes(step, change) for step, change in enumerate(changes)]


def test_teacache_runs_the_blocks_when_the_rescaled_sum_reaches_the_threshold():
    # the polynomial 2 x: 0.2, 0.4, then 0.6 >= 0.5
    rule = TeaRule([2.0, 0.0], threshold=0.5, last=9)
    assert decisions(rule, [0.0, 0.1, 0.1, 0.1, 0.1, 0.3, 0.1]) == [True, False, False, True, False, True, False]


def test_teacache_always_runs_the_first_and_the_last_step():
    assert decisions(TeaRule([1.0, 0.0], threshold=99.0, last=3), [0.0] * 4) == [True, False, False, True]


def test_peak_power_turns_down_one_bad_edge_for_two_fair_ones():
    weights = np.full((5, 5), np.inf)
    weights[range(4), range(1, 5)] = 0.0
    weights[0, 2], weights[2, 4], weights[1, 4] = 0.6, 0.6, 1.0
    assert PEAK_POWER > 1
    assert shortest_path(ErrorGraph(weights), 3).steps == (0, 1, 4)
    assert shortest_path(ErrorGraph(peak_powers(weights)), 3).steps == (0, 2, 4)
