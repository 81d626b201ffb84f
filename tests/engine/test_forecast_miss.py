"""What a request's own computed steps say about its forecasts."""

import dataclasses

import pytest
import torch

from lemica_backend.engine import Engine
from lemica_backend.replay import EngineReplayer
from lemica_backend.step_cache import StepCache
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, Check, Sample
from lemica_planner.lazy import calibrate_lazily

TIMES = [1.0, 0.8, 0.6, 0.4, 0.2]
SAMPLE = Sample("a cat", 4)


def ones(value):
    return torch.full((2, 3), value)


def recorded(checks, values, *, switches=()):
    cache = StepCache(TIMES, ("residual-split",), switches, checks)
    for step, value in values.items():
        cache.record(step, "uncond", ones(9.0))
        cache.record(step, "cond", ones(value))
    return cache


def test_it_is_the_geometric_mean_of_misses_over_usual_ones():
    checks = {(0, 1): Check("cond", 0.5, (1.0,)), (0, 1, 3): Check("cond", 0.25, (-1.0, 2.0))}
    cache = recorded(checks, {0: 1.0, 1: 2.0, 3: 4.0})  # misses 1 of 0.5 usual, and 1 of 0.25
    assert cache.forecast_miss() == pytest.approx((2.0 * 4.0) ** 0.5)


def test_both_branches_count_where_the_part_is_the_residual():
    cache = recorded({(0, 1): Check("residual", 1.0, (1.0,))}, {0: 1.0, 1: 3.0})  # misses 2 and 0
    assert cache.forecast_miss() == pytest.approx(2.0**0.5)


def test_steps_without_a_check_do_not_count():
    assert recorded({(0, 2): Check("cond", 1.0, (1.0,))}, {0: 1.0, 1: 2.0}).forecast_miss() is None


def test_nothing_is_forecast_across_a_switch():
    checks = {(0, 2): Check("cond", 1.0, (1.0,)), (2, 3): Check("cond", 1.0, (1.0,))}
    assert recorded(checks, {0: 1.0, 2: 5.0, 3: 7.0}, switches=(1,)).forecast_miss() == pytest.approx(2.0)


@pytest.fixture(scope="module")
def plan(model, config, tmp_path_factory):
    journal = tmp_path_factory.mktemp("miss") / "journal.jsonl"
    replayer = EngineReplayer(model, config, "tiny")
    known = {"max_span": 3, "budgets": [4], "operators": ("residual-split",), "journal": journal}
    return CachePlan.from_graph(calibrate_lazily(replayer, [SAMPLE], **known))


def info_of(model, config, plan, budget):
    engine = Engine(model, config, plan)
    try:
        return engine.generate(GenerationRequest(SAMPLE.prompt, seed=SAMPLE.seed, budget=budget)).info
    finally:
        engine.close()


def test_the_calibration_sample_misses_what_is_usual(model, config, plan):
    info = info_of(model, config, plan, "4")
    assert info["forecast_miss"] == pytest.approx(1.0, abs=0.15)
    assert info["quality_warning"] is False


def test_one_that_misses_more_is_warned_of(model, config, plan):
    strange = {steps: check._replace(usual=check.usual / 2) for steps, check in plan.checks.items()}
    info = info_of(model, config, dataclasses.replace(plan, checks=strange), "4")
    assert info["forecast_miss"] == pytest.approx(2.0, abs=0.3)
    assert info["quality_warning"] is True
    lax = config.model_copy(update={"warn_above": 5.0})
    assert info_of(model, lax, dataclasses.replace(plan, checks=strange), "4")["quality_warning"] is False


def test_full_computes_everything_and_forecasts_nothing(model, config, plan):
    info = info_of(model, config, plan, "full")
    assert info["forecast_miss"] is None
    assert info["quality_warning"] is False
