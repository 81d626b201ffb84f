"""Evaluations on a tiny model: each once, whatever interrupts them."""

import json

import numpy as np
import pytest

from benchmarks.paper import evaluations
from benchmarks.paper.evaluations import Evaluations, entry_key
from benchmarks.videos import full_entry, make_videos
from lemica_planner import PlanEntry, Sample
from tests.benchmarks.conftest import STEPS

SAMPLES = [Sample("a cat", 1), Sample("a dog", 2)]
FEW, MORE = PlanEntry((0, 4, STEPS - 1)), PlanEntry((0, 2, 4, 6, STEPS - 1))


@pytest.fixture
def counted(monkeypatch):
    """The entries of every batch of videos that is made."""
    made = []

    def make(opened, entries, sample):
        made.append(list(entries))
        return make_videos(opened, entries, sample)

    monkeypatch.setattr(evaluations, "make_videos", make)
    return made


@pytest.fixture
def path(tmp_path, no_lpips):
    return tmp_path / "work" / "evaluations.jsonl"


def test_scores_are_against_the_full_video(path, opened):
    found = Evaluations(path)
    found.run(opened, [FEW, MORE, full_entry(STEPS)], SAMPLES[:1], "try")
    full, few = make_videos(opened, [full_entry(STEPS), FEW], SAMPLES[0])
    (scores,) = found.scores(opened, FEW, SAMPLES[:1])
    assert scores["latents_l1"] == pytest.approx(np.abs(full.latents - few.latents).mean(), rel=1e-3)
    assert (
        found.scores(opened, full_entry(STEPS), SAMPLES[:1])[0]["psnr_db"] > 90
    )  # rows of another batch round otherwise
    assert found.scores(opened, MORE, SAMPLES[:1])[0]["latents_l1"] < scores["latents_l1"]


def test_a_distinct_plan_runs_once(path, opened, counted):
    twin = PlanEntry(FEW.steps, errors=(0.2, 0.1), operators=("residual", "residual"))
    Evaluations(path).run(opened, [FEW, twin, FEW], SAMPLES[:1], "try")
    assert [len(entries) for entries in counted] == [1, 1]  # in full, and once reused
    assert len(path.read_text().splitlines()) == 1


def test_what_is_on_disk_is_not_run_again(path, opened, counted):
    Evaluations(path).run(opened, [FEW], SAMPLES, "try")
    before = len(counted)
    again = Evaluations(path)
    again.run(opened, [FEW], SAMPLES, "try")
    assert len(counted) == before
    assert again.jobs(opened, [FEW, MORE], SAMPLES) == [(sample, (MORE,)) for sample in SAMPLES]


def test_an_interrupted_run_goes_on(path, opened, monkeypatch):
    def interrupted(opened, entries, sample):
        if sample == SAMPLES[1]:
            raise KeyboardInterrupt
        return make_videos(opened, entries, sample)

    monkeypatch.setattr(evaluations, "make_videos", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Evaluations(path).run(opened, [FEW], SAMPLES, "try")
    assert Evaluations(path).jobs(opened, [FEW], SAMPLES) == [(SAMPLES[1], (FEW,))]


def test_a_torn_line_is_measured_again(path, opened):
    Evaluations(path).run(opened, [FEW], SAMPLES, "try")
    path.write_text(path.read_text()[:-40])
    torn = Evaluations(path)
    assert torn.jobs(opened, [FEW], SAMPLES) == [(SAMPLES[1], (FEW,))]
    torn.run(opened, [FEW], SAMPLES, "try")
    assert not Evaluations(path).jobs(opened, [FEW], SAMPLES)


def test_another_setting_is_evaluated_anew(path, opened):
    Evaluations(path).run(opened, [FEW], SAMPLES[:1], "try")
    found = Evaluations(path)
    assert not found.jobs(opened.with_defaults(num_steps=STEPS, guidance_scale=4.0), [FEW], SAMPLES[:1])
    for other in (opened.with_defaults(guidance_scale=2.0), opened.with_defaults(num_steps=STEPS + 1)):
        assert found.jobs(other, [FEW], SAMPLES[:1])


def test_a_line_tells_what_it_is_of(path, opened):
    Evaluations(path).run(opened, [FEW], SAMPLES[:1], "try")
    known = json.loads(path.read_text())
    assert (known["prompt"], known["seed"], known["steps"]) == ("a cat", 1, list(FEW.steps))
    assert (known["model"], known["weights"]) == ("tiny_a", opened.model.info.weights_hash)


@pytest.mark.parametrize(
    "other",
    [
        PlanEntry((0, 4, STEPS)),
        PlanEntry((0, 5, STEPS - 1)),
        PlanEntry(FEW.steps, operators=("residual", "output")),
        PlanEntry(FEW.steps, operators=("residual-fitted",) * 2, weights={2: (1.0,)}),
    ],
)
def test_what_changes_the_video_changes_the_key(other):
    assert entry_key(other) != entry_key(FEW)


def test_what_fills_no_step_does_not_matter():
    first, second = (PlanEntry((0, 1, 9), operators=(name, "residual")) for name in ("residual", "output"))
    assert entry_key(first) == entry_key(second)
