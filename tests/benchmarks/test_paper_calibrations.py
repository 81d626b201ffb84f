"""Draws from the pool, and calibrations that share what they measure."""

from pathlib import Path

import pytest

from benchmarks.paper import calibrations
from benchmarks.paper.calibrations import Calibrations, are_disjoint, draw_samples, read_pool
from benchmarks.paper.options import HELD_OUT_FILE, POOL_FILE
from demo.measure import read_prompts
from lemica_planner import CalibrationError, Sample, solve
from lemica_planner.calibrate import calibrate
from lemica_planner.prompt_sets import Prompt, draw
from shapes.scene import split_scenes
from tests.planner.toy_replayer import ToyReplayer

POOL = [Sample(f"prompt {number}", number) for number in range(30)]
STEPS, SPAN_SHARE = 24, 0.25


class ToyOpened:
    """What `Calibrations` needs of an open model."""

    def __init__(self, key="toy"):
        self.name, self.key, self.num_steps = "toy", key, STEPS
        self.replayers = []

    def replayer(self):
        self.replayers.append(ToyReplayer(STEPS))
        return self.replayers[-1]

    @property
    def forwards(self):
        return sum(replayer.model.forwards for replayer in self.replayers)


@pytest.mark.parametrize("size", [1, 2, 5, 10])
def test_draws_are_disjoint_while_the_pool_has_room(size):
    draws = draw_samples(POOL, size, 3)
    assert [len(samples) for samples in draws] == [size] * 3
    assert are_disjoint(draws)


def test_a_draw_holds_the_smaller_ones_of_its_number():
    for small, large in zip(draw_samples(POOL, 4, 3), draw_samples(POOL, 20, 3), strict=True):
        assert large[:4] == small


def test_larger_draws_overlap_but_hold_no_sample_twice():
    draws = draw_samples(POOL, 20, 3)
    assert not are_disjoint(draws)
    assert [len(set(samples)) for samples in draws] == [20] * 3
    assert len(set(map(frozenset, draws))) == 3


def test_the_whole_pool_is_drawn_once():
    assert draw_samples(POOL, 30, 3) == [tuple(POOL)]


def test_more_than_the_pool_is_refused():
    with pytest.raises(CalibrationError, match=r"31 of a pool of 30.*--pool-seeds"):
        draw_samples(POOL, 31, 3)


def test_every_sample_of_the_pool_has_its_own_noise(tmp_path):
    path = tmp_path / "pool.txt"
    path.write_text("# comment\na\nb\n")
    assert read_pool(path, 2) == (Sample("a", 0), Sample("b", 1), Sample("a", 2), Sample("b", 3))


def test_the_pool_is_a_draw_from_trained_captions():
    trained, held_out = split_scenes()
    categories = [Prompt(scene.caption, f"{scene.shape} {scene.motion}") for scene in trained]
    assert read_prompts(POOL_FILE) == tuple(prompt.text for prompt in draw(categories, 70, seed=0))
    assert {scene.caption for scene in held_out} >= set(read_prompts(HELD_OUT_FILE))


def test_it_finds_the_plans_of_the_naive_graph(tmp_path):
    found = Calibrations(tmp_path, SPAN_SHARE)
    samples = POOL[:3]
    naive = calibrate(ToyReplayer(STEPS), samples, max_span=found.max_span(STEPS), journal=tmp_path / "naive")
    entries = found.entries(ToyOpened(), samples)
    assert {name: entry.budget for name, entry in entries.items()} == {"slow": 12, "medium": 8, "fast": 5}
    for entry in entries.values():
        assert entry.predicted_error == pytest.approx(solve(naive, entry.budget).worst, rel=0.05)


def test_a_graph_is_kept(tmp_path, monkeypatch):
    first = Calibrations(tmp_path, SPAN_SHARE).entries(ToyOpened(), POOL[:2])
    monkeypatch.setattr(calibrations, "calibrate_lazily", None)
    assert Calibrations(tmp_path, SPAN_SHARE).entries(ToyOpened(), POOL[:2]) == first


@pytest.mark.parametrize("other", [{"opened": ToyOpened("other")}, {"samples": POOL[1:3]}, {"span_share": 0.3}])
def test_another_setting_draw_or_span_is_another_graph(tmp_path, other):
    asked = {"opened": ToyOpened(), "samples": POOL[:2], "span_share": SPAN_SHARE}
    for each in (asked, asked | other):
        Calibrations(tmp_path, each["span_share"]).graph(each["opened"], each["samples"])
    assert len(list(Path(tmp_path / "graphs").iterdir())) == 2


def test_draws_share_measurements(tmp_path):
    shared, fresh = ToyOpened(), ToyOpened()
    Calibrations(tmp_path / "shared", SPAN_SHARE).graph(shared, POOL[:3])
    before = shared.forwards
    graph = Calibrations(tmp_path / "shared", SPAN_SHARE).graph(shared, POOL[:4])
    alone = Calibrations(tmp_path / "fresh", SPAN_SHARE).graph(fresh, POOL[:4])
    assert shared.forwards - before < 0.7 * fresh.forwards
    found, expected = ({budget: entry.steps for budget, entry in each.entries().items()} for each in (graph, alone))
    assert found == expected  # what others measured changes nothing


def test_longer_schedules_skip_as_large_a_share():
    found = Calibrations(Path(), 0.2)
    assert [found.max_span(steps) for steps in (4, 30, 50, 100)] == [2, 6, 10, 20]
    assert found.budgets(50) == {10: "fast", 17: "medium", 25: "slow"}
