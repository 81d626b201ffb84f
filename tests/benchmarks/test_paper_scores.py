"""Intervals over prompts and draws, paired differences, and where more samples stop to help."""

import numpy as np
import pytest

from benchmarks.bench_outcomes import bootstrap
from benchmarks.paper.scores import MEASURES, Row, difference, interval, saturation

LPIPS, SSIM = MEASURES[:2]


def row(values, method="n = 1"):
    return Row("model", 10, method, {measure.key: np.asarray(values, float) for measure in MEASURES})


def width(found):
    return found.high - found.low


def test_one_draw_is_the_bootstrap_over_prompts():
    values = np.random.default_rng(0).random((1, 8))
    assert interval(values) == (values.mean(), *bootstrap(values[0]))


def test_both_draws_and_prompts_widen_the_interval():
    rng = np.random.default_rng(0)
    prompts, draws = rng.normal(size=(1, 8)), rng.normal(size=(5, 1))
    by_prompts, by_draws = interval(prompts + np.zeros((5, 1))), interval(draws + np.zeros((1, 8)))
    assert width(by_prompts) == pytest.approx(width(interval(prompts)), rel=0.1)
    assert width(interval(prompts + draws)) > max(width(by_prompts), width(by_draws))


def test_a_difference_is_paired():
    """The prompts' own spread is in both rows, and not in their difference."""
    prompts = np.random.default_rng(0).random((1, 8))
    found = difference(row(prompts + 0.1, "a"), row(prompts, "b"))
    assert found.method == "a - b"
    assert found.intervals()["lpips"] == pytest.approx((0.1, 0.1, 0.1))


def test_one_draw_stands_against_every_draw():
    assert difference(row([[1, 2], [3, 4]]), row([[1, 2]])).values["ssim"].tolist() == [[0, 0], [2, 2]]


def test_a_rows_json_holds_its_plans_and_intervals():
    known = Row("model", 2, "own", {"lpips": np.array([[1 / 3]])}, ((0, 9),)).to_dict()
    assert known == {"group": "model", "budget": 2, "method": "own", "steps": [[0, 9]], "lpips": [0.333333] * 3}


@pytest.mark.parametrize(("measure", "sign"), [(LPIPS, 1), (SSIM, -1)])
def test_it_saturates_where_no_more_is_worse_for_sure(measure, sign):
    noise = np.random.default_rng(0).normal(size=(3, 8)) / 100
    rows = {size: row(noise * (size < 10) + sign * (size < 5) + np.zeros((3, 8))) for size in (1, 2, 5, 10)}
    assert saturation(rows, measure) == 5
    assert saturation({size: rows[size] for size in (1, 2, 10)}, measure) == 10


def test_better_than_the_largest_is_not_worse():
    assert saturation({1: row([[0.0, 0.0]]), 5: row([[1.0, 1.0]])}, LPIPS) == 1


def test_a_single_size_says_nothing():
    assert saturation({5: row([[1.0]])}, LPIPS) is None
