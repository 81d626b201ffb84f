"""The benchmarks of forecasts and of guidance, on one calibration of a tiny model of random weights."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from benchmarks import bench_fits, bench_guidance
from lemica_backend.denoise import denoise
from lemica_backend.replay import open_replayer
from lemica_planner import Sample
from lemica_planner.lazy import calibrate_lazily
from tests.benchmarks.conftest import STEPS

SAMPLES = [Sample("a red cube", 0), Sample("a blue cube", 1), Sample("a green cone", 2)]


@pytest.fixture(scope="module")
def calibrated(tiny_a, tmp_path_factory):
    """Return the folder that holds a lazy graph of split residuals and its journal."""
    folder = tmp_path_factory.mktemp("calibrated")
    known = {"max_span": 5, "operators": ("residual-split",), "journal": folder / "journal.jsonl"}
    calibrate_lazily(open_replayer(tiny_a, "latents_l1"), SAMPLES, budgets=[4], checks=0, **known).save(
        folder / "graph.npz"
    )
    return folder


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_more_values_a_fitted_sum_looks_at_the_less_it_leaves_on_its_own_samples(tiny_a, calibrated):
    grams = [sample["cond"] for sample in bench_fits.read_grams(calibrated / "journal.jsonl")]
    left = [max(bench_fits.errors([grams[0], grams[0]], 2, looks_at, bench_fits.fit_weights)) for looks_at in (1, 2, 3)]
    assert len(grams) == len(SAMPLES)
    assert left[0] > left[1] > left[2] > 0


def values_of(gram):
    """Return a row of numbers for each step that has just these products."""
    sizes, directions = np.linalg.eigh(gram)
    return directions * np.sqrt(np.clip(sizes, 0, None))


def left_by(forecast, grams, gap):
    """Return the median relative error of a forecast of two values, in plain vectors; `forecast` gets three steps."""
    left = []
    for values in map(values_of, grams):
        for last in range(2 * gap, len(values) - gap):
            before, step = last - gap, last + gap - 1
            weight = forecast(before, last, step)
            missed = values[step] - (1 - weight) * values[last] - weight * values[before]
            left.append(np.linalg.norm(missed) / np.linalg.norm(values[step]))
    return np.median(left)


def test_forecasts_are_said_as_shares_of_what_reuse_leaves(tiny_a, calibrated, capsys):
    bench_fits.main(tiny_a, calibrated / "journal.jsonl", gaps="2,3")
    found = last_line(capsys)
    samples = bench_fits.read_grams(calibrated / "journal.jsonl")
    shares = {(row["part"], row["gap"], row["forecast"]): row["of_reuse"] for row in found["rows"]}
    times = DDIMScheduler.from_pretrained(tiny_a / "1" / "weights", subfolder="scheduler")
    times.set_timesteps(STEPS)
    at = times.timesteps.tolist()
    assert found["samples"] == len(samples) == len(SAMPLES)
    assert {part for part, _, _ in shares} >= {"residual", "cond", "guidance"}
    for part, gap in {(part, gap) for part, gap, _ in shares}:
        grams = [sample[part] for sample in samples]
        reuse = left_by(lambda *_: 0, grams, gap)
        line = left_by(lambda before, last, step: (at[last] - at[step]) / (at[before] - at[last]) * -1, grams, gap)
        assert shares[part, gap, "reuse"] == 1
        assert shares[part, gap, "line in timestep"] == pytest.approx(line / reuse, rel=1e-3)


def test_a_line_leaves_nothing_of_values_that_lie_on_one():
    at = np.array([9.0, 7.0, 6.0, 4.0, 3.0, 1.0, 0.0])
    values = np.stack([np.ones(7), at], axis=1)
    rows = bench_fits.compare([{"cond": values @ values.T}] * 2, {"its own": at, "another": at**2}, [2])
    shares = {row["forecast"]: row["of_reuse"] for row in rows}
    for forecast in ("line in its own", "parabola in its own", "fitted, 2 values"):
        assert shares[forecast] == pytest.approx(0, abs=1e-3)
    assert 0.05 < shares["line in another"] < 1


def test_computing_both_branches_everywhere_is_the_full_run(opened, calibrated):
    config = opened.config
    trial = bench_guidance.Trial(opened.model, SAMPLES[0].prompt, 0, config.defaults.guidance_scale, config)
    grams = bench_fits.read_grams(calibrated / "journal.jsonl")[0]
    latents = bench_guidance.run(trial, dict.fromkeys(range(STEPS), "both"), grams)
    job = trial.job()
    with torch.inference_mode():
        while not job.is_finished:
            denoise(trial.model, [job])
    torch.testing.assert_close(latents, job.latents, rtol=1e-5, atol=1e-5)


def test_paths_of_both_and_of_mixed_branches_cost_the_same(tiny_a, calibrated, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a white ball\na black ball\n")
    options = {"budgets": "4", "evaluations": 4, "count": 2, "metric": "latents_l1"}
    bench_guidance.main(tiny_a, graph=calibrated / "graph.npz", held_out=tmp_path / "prompts.txt", **options)
    rows = last_line(capsys)["rows"]
    assert {row["path"] for row in rows} >= {"plan", "both", "mixed"}
    assert {row["forwards"] for row in rows} == {8}
    assert all(row["error"] > 0 for row in rows)
    assert [row["ratio"] for row in rows if row["path"] == "both"] == [1.0]
