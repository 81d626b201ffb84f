"""Rows, curves and ratios by hand."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks.rivals.catalogue import chosen
from benchmarks.rivals.compare import Curve, at_most, curves, ratios, ratios_at_equal_time
from benchmarks.rivals.fidelity import attributes_right
from benchmarks.rivals.report import time_objects
from benchmarks.rivals.rival import Rival
from benchmarks.rivals.rows import QualityRow, Store, TimeRow
from benchmarks.rivals.timing import median_ratios
from lemica_planner.curves_file import read_curves
from shapes.render import draw
from shapes.scene import Scene


def rival(method="m", setting="s", recipe="r", gate=0.0):
    return Rival(method, setting, recipe, lambda begin: None, gate=gate)


def row(of, *, seed=0, weights="w", forwards=10.0):
    seen = {"forwards": forwards, "lpips": 0.1, "ssim": 1.0, "psnr_db": 50.0, "latents_l1": 0.0}
    return QualityRow(of.method, of.setting, of.digest, weights, f"prompt {seed}", seed, **seen, attributes_right=None)


def curve(method, forwards, lpips, prompts=1):
    lpips = np.tile(np.asarray(lpips, float), (prompts, 1))
    return Curve(method, tuple("abc"[: len(forwards)]), np.tile(forwards, (prompts, 1)), {"lpips": lpips})


def test_a_stopped_run_goes_on_after_its_last_whole_row(tmp_path):
    path, one = tmp_path / "new" / "rows.jsonl", rival()
    Store(path).add(row(one))
    with path.open("a") as file:
        file.write('{"kind": "quality", "meth')
    again = Store(path)
    again.add(row(one, seed=1))
    assert Store(path).rows == [row(one), row(one, seed=1)]


def test_what_was_timed_is_a_chart_over_time():
    found = time_objects([curve("m", [10.0, 20.0], [0.2, 0.1], prompts=2)], {("m", "a"): 0.25, ("other", "b"): 0.5})
    (row,) = found["lpips_by_time"]["rows"]
    assert (row["setting"], row["cost"], row["forwards"], row["value"]) == ("a", 0.25, 10.0, 0.2)
    (chart,) = read_curves(json.dumps({"curves": found}), "rivals.json").values()
    assert chart.across == "share of a full run's time"
    assert time_objects([curve("m", [10.0], [0.2])], {}) == {}


def test_rows_of_other_recipes_or_weights_do_not_count(tmp_path):
    store, one = Store(tmp_path / "rows.jsonl"), rival()
    for other in (row(one, weights="other"), row(rival(recipe="other")), row(rival(method="other"))):
        store.add(other)
    assert store.quality([one], "w") == []
    store.add(row(one))
    assert store.quality([one], "w") == [row(one)]


def test_a_curve_goes_from_cheap_to_dear_over_the_prompts_that_have_all_settings():
    cheap, dear = rival(setting="cheap"), rival(setting="dear")
    rows = [row(dear, seed=1, forwards=20), row(cheap, seed=1, forwards=9), row(dear, forwards=22), row(cheap)]
    found = curves([*rows, row(cheap, seed=2)], [dear, cheap], num_steps=50)
    assert [each.settings for each in found] == [("cheap", "dear")]
    assert found[0].forwards.tolist() == [[10, 22], [9, 20]]


def test_a_gate_is_counted_as_one_pair_of_28_too():
    gated = rival(gate=0.25)
    measured, deep = curves([row(gated, forwards=10 + 40 * 0.25)], [gated], num_steps=50)
    assert measured.cost == pytest.approx([20])
    assert deep.method == "m (28 pairs)"
    assert deep.cost == pytest.approx([10 + 40 / 28])


def test_ratios_at_equal_forwards_are_read_on_straight_lines_in_the_logarithm():
    base, other = curve("base", [10, 20], [0.1, 0.01]), curve("other", [10, 20], [0.2, 0.05])
    at_ten, between = ratios(base, [other], [10, 15])
    assert at_ten.ratio == pytest.approx(2)
    assert between.ratio == pytest.approx((0.2 * 0.05) ** 0.5 / (0.1 * 0.01) ** 0.5)


def test_a_rival_that_is_never_that_cheap_may_spend_more_and_one_never_that_dear_is_left_out():
    base = curve("base", [10, 20, 30], [0.1, 0.01, 0.001])
    few, many = ratios(base, [curve("other", [14, 20], [0.3, 0.2])], [10, 30])
    assert (few.ratio, few.uses_more) == (pytest.approx(3), True)
    assert many.ratio is None


def test_intervals_are_paired_over_prompts():
    """A rival that loses twice as much on every prompt loses twice as much in every draw."""
    base, other = curve("base", [10], [0.1], prompts=5), curve("other", [10], [0.1], prompts=5)
    spread = np.array([[0.1], [0.3], [0.01], [0.2], [0.05]])
    base, other = (
        dataclasses.replace(each, values={"lpips": spread * factor}) for each, factor in ((base, 1), (other, 2))
    )
    found = next(ratios(base, [other], [10]))
    assert found.interval == pytest.approx((2, 2))


def test_equal_time_compares_where_the_clock_agrees():
    base, other = curve("base", [10, 20], [0.1, 0.01]), curve("other", [10, 20], [0.2, 0.05])
    times = {("base", "a"): 0.2, ("base", "b"): 0.4, ("other", "a"): 0.4, ("other", "b"): 0.8}
    at_ten, at_twenty = ratios_at_equal_time(base, [other], [10, 20], times)
    assert (at_ten.ratio, at_ten.uses_more) == (pytest.approx(2), True)
    assert (at_twenty.ratio, at_twenty.uses_more) == (pytest.approx(20), False)


def test_the_plan_beside_a_rival_takes_at_most_as_many_forwards():
    base = curve("base", [10, 20, 30], [0.1, 0.01, 0.001])
    assert [at_most(base, forwards) for forwards in (9, 10, 29.9, 30, 99)] == [0.1, 0.1, 0.01, 0.001, 0.001]


def test_times_are_medians_over_prompts_and_rounds():
    rows = [TimeRow("m", "s", "r", "w", "p", 0, turn, ratio) for turn, ratio in enumerate((0.2, 0.9, 0.3))]
    assert median_ratios(rows) == {("m", "s"): 0.3}


def test_methods_are_chosen_by_name():
    every = [rival("full"), rival("ours"), rival("pab"), rival("uniform")]
    assert [each.method for each in chosen(every, ["pab"], always=("full", "ours"))] == ["full", "ours", "pab"]
    assert chosen(every, [], always=()) == every
    with pytest.raises(ValueError, match="no such methods: pap; there are: full, ours, pab, uniform"):
        chosen(every, ["pap"], always=())


def test_the_checker_reads_how_much_of_a_prompt_is_there():
    scene = Scene("red", "circle", "moving right", "black")
    frames = draw(scene, np.random.default_rng(0))
    assert attributes_right(frames, scene.caption) == 1.0
    assert attributes_right(frames, scene._replace(colour="blue", shape="cross").caption) == 0.5
    assert attributes_right(frames, "a cat") is None
