"""Ways to spend forwards, against whole generations made by hand."""

import numpy as np
import pytest

from lemica_backend.replay import EngineReplayer
from lemica_backend.yardstick import Judges
from lemica_planner import CalibrationError, PlanEntry, Sample
from lemica_planner.samplers import OWN, Sampler, Way, parse_sampler
from lemica_planner.step_search import SearchSpace, own_references, search
from lemica_planner.way_plans import Planning
from tests.engine.test_replay import STEPS, final_latents

SAMPLE = Sample("a cat", 4)
FULL = Way(OWN, STEPS)
CACHED = Way(OWN, STEPS, PlanEntry((0, 2, 5), operators=("residual-linear",) * 2), "even")


@pytest.fixture(scope="module")
def replayer(model, config):
    return EngineReplayer(model, config, "tiny")


def test_the_full_run_is_its_own_reference(replayer):
    measured = replayer.yardstick(SAMPLE, {"full": FULL}).measure(FULL)
    assert measured["full"] == {"latents_l1": 0.0, "psnr_db": 100.0}
    assert measured["run"]["time_in_forwards"] == STEPS


def test_a_cached_way_equals_a_whole_generation(replayer, model, config):
    full, cached = (final_latents(model, config, steps, "residual-linear") for steps in (range(STEPS), {0, 2, 5}))
    measured = replayer.yardstick(SAMPLE, {"full": FULL}).measure(CACHED)
    assert measured["full"]["latents_l1"] == pytest.approx(np.abs(full - cached).mean(), rel=1e-3)
    assert measured["run"]["time_in_forwards"] > 3


def test_psnr_is_of_the_frames(replayer, model, config):
    yardstick = replayer.yardstick(SAMPLE, {"full": FULL})
    one, other = (yardstick._make(way)[1].frames.astype(float) for way in (FULL, CACHED))
    expected = 10 * np.log10(255**2 / np.square(one - other).mean())
    assert yardstick.measure(CACHED)["full"]["psnr_db"] == pytest.approx(expected)


def test_references_may_be_kept(model, config, tmp_path, monkeypatch):
    replayer = EngineReplayer(model, config, "tiny")
    first = replayer.yardstick(SAMPLE, {"full": FULL}).measure(CACHED)["full"]
    replayer.keep = tmp_path
    kept = replayer.yardstick(SAMPLE, {"full": FULL}).measure(CACHED)["full"]
    monkeypatch.setattr("lemica_backend.yardstick.start_job", None)  # nothing is made again
    replayer.yardstick(SAMPLE, {"full": FULL})
    monkeypatch.undo()
    again = replayer.yardstick(SAMPLE, {"full": FULL}).measure(CACHED)["full"]
    assert kept == first == again
    replayer.yardstick(Sample("a dog", 4), {"full": FULL})
    assert len(list(tmp_path.iterdir())) == 2


def test_other_judges(model, config):
    replayer = EngineReplayer(model, config, "tiny")
    pairs, alone = {"frames": lambda video, _: len(video.frames)}, {"words": lambda _, text: len(text)}
    replayer.judges = Judges(pairs, alone)
    assert replayer.measures() == ["frames", "words"]
    measured = replayer.yardstick(SAMPLE, {"full": FULL}).measure(FULL)
    assert (measured["full"], measured["prompt"]) == ({"frames": 16}, {"words": 5})


def test_another_sampler_is_in_the_provenance(replayer):
    other = replayer.resampled(parse_sampler("unipc-trailing"), 12).provenance()
    assert (other.num_inference_steps, other.scheduler) == (12, "UniPCMultistepScheduler")
    assert other.scheduler_config["timestep_spacing"] == "trailing"
    assert replayer.resampled(OWN, STEPS).provenance() == replayer.provenance()


def test_timesteps(replayer):
    assert replayer.timesteps(parse_sampler("ddim-trailing"), 4) == (999, 749, 499, 249)


@pytest.mark.parametrize(("name", "parameters"), [("NoScheduler", {}), ("UniPCMultistepScheduler", {"speed": 3})])
def test_a_sampler_that_cannot_be_is_named(replayer, name, parameters):
    with pytest.raises(CalibrationError, match="sampler 'x' cannot be used"):
        replayer.resampled(Sampler("x", name, parameters), 5)


def test_a_whole_search(replayer, tmp_path):
    """First-order DPM-Solver++ on the timesteps that a plan with held noise computes is that plan (Lu et al. 2022)."""
    one = Sampler("ddim by another name", "DPMSolverMultistepScheduler", {"solver_order": 1})
    space = SearchSpace(
        costs=(3,),
        samplers=(parse_sampler("unipc-trailing"),),
        cached=(parse_sampler("ddim-trailing"), parse_sampler("dpmsolver++-trailing")),
        steps=(10,),  # each of 100 timesteps, which DDIM takes exactly
        operators=("residual-fitted", "output-linear", "noise"),
        measured=True,
        reuse_timesteps=(one,),
    )
    references = own_references(replayer, parse_sampler("dpmsolver++@ddim-linspace"), 20)
    planning = Planning((Sample("a dog", 0),), tmp_path)
    known = search(replayer, [SAMPLE], space, references, planning=planning, journal=tmp_path / "rows")
    assert len(known.ways) == 2 + 1 + 8 + 4
    values = {way.name: row for way, row in zip(known.ways, known.values["converged", "latents_l1"], strict=True)}
    held = values["ddim-trailing, 10 steps, noise (measured)"]
    assert values[f"{one.name} on timesteps of ddim-trailing 10, 3 steps (measured)"] == pytest.approx(held, rel=1e-3)
    assert all(np.isfinite(row).all() for row in known.values.values())
