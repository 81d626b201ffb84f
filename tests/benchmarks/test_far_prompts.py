"""The benchmark of far prompts: its statistics against their definitions, its prompts, and what it sees."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.far_prompts.cases import make_cases, read_groups
from benchmarks.far_prompts.statistics import area_under_curve, by_prompt, rank_correlation, ratio_interval
from benchmarks.far_prompts.survey import Depth
from benchmarks.far_prompts.watch import WatchedCache
from lemica_planner import Fill

GROUPS = (frozenset[str](), frozenset({"far"}))
FAR = Path(__file__).parents[2] / "benchmarks" / "far_prompts.txt"


def test_area_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    signal, bad = rng.integers(0, 5, 30).astype(float), rng.integers(0, 2, 30).astype(float)
    pairs = list(product(signal[bad > 0], signal[bad == 0]))
    share = np.mean([(high > low) + 0.5 * (high == low) for high, low in pairs])
    assert area_under_curve(signal, bad) == pytest.approx(share)


def test_rank_correlation_sees_order_alone():
    assert rank_correlation(np.array([3.0, 1.0, 2.0]), np.array([900.0, -1.0, 5.0])) == 1
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == -1
    # two pairs of ties: by hand from mean ranks 1.5, 1.5, 3, 4 and 1, 2, 3.5, 3.5
    assert rank_correlation(np.array([1, 1, 2, 3.0]), np.array([1, 2, 3, 3.0])) == pytest.approx(4 / 4.5)


def test_intervals_draw_whole_prompts():
    signal = np.arange(40.0)
    low, high = by_prompt(lambda one, _: float(one.mean()), signal, signal, ["a"] * 20 + ["b"] * 20)
    assert (low, high) == (9.5, 29.5)


def test_ratio_is_a_geometric_mean_within_its_interval():
    middle, low, high = ratio_interval(np.array([2.0, 8.0]), np.array([1.0, 1.0]))
    assert middle == pytest.approx(4)
    assert low <= middle <= high


def test_groups_are_read_with_the_empty_prompt(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text('# far\n[one]\na b\n[two]\n""\nc\n')
    assert read_groups(path) == {"one": ("a b",), "two": ("", "c")}


def test_a_prompt_before_the_first_group_is_refused(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a b\n[one]\nc\n")
    with pytest.raises(ValueError, match="stands before the first"):
        read_groups(path)


def test_no_two_videos_share_a_seed():
    groups = read_groups(FAR)
    seeds = [case.sample.seed for case in make_cases(groups, rounds=3)]
    assert len(seeds) == len(set(seeds)) == 3 * sum(map(len, groups.values()))


def test_a_watched_cache_sees_each_forecasts_error():
    line = {2: {"reuse": Fill("residual"), "line": Fill("residual-linear")}}
    cache = WatchedCache((2.0, 1.0, 0.0), line, guidance_scale=3.0)
    for step, (uncond, cond) in enumerate([(0.0, 1.0), (1.0, 1.5), (3.0, 2.0)]):
        cache.record(step, "uncond", torch.full((2,), uncond))
        cache.record(step, "cond", torch.full((2,), cond))
    assert cache.seen[2]["reuse"] == {"uncond": 2.0, "cond": 0.5, "combined": 2.5, "difference": 1.5}
    assert cache.seen[2]["line"] == {"uncond": 1.0, "cond": 0.0, "combined": 2.0, "difference": 1.0}
    assert set(cache.seen[1]) == {"size"}


def test_oracles_are_for_the_first_prompts_of_the_named_groups():
    cases = make_cases({"near": ("a", "b"), "far": ("c", "d")}, rounds=2)
    deep = {groups: [case.sample.prompt for case in cases if Depth(1, 0, groups).has_oracle(case)] for groups in GROUPS}
    assert deep == {frozenset(): ["a", "c"], frozenset({"far"}): ["c"]}
