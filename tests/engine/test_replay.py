"""Calibration replays against whole generations with one segment reused."""

import dataclasses

import numpy as np
import pytest

from lemica_backend.denoise import denoise
from lemica_backend.job import start_job
from lemica_backend.planned import plan_request
from lemica_backend.replay import EngineReplayer, open_replayer
from lemica_backend.types import GenerationRequest
from lemica_planner import CalibrationError, Sample

STEPS = 6


def final_latents(model, config, computed):
    request = GenerationRequest("a cat", seed=4, budget="full")
    planned = plan_request(request, info=model.info, config=config, plan=None)
    job = start_job(model, dataclasses.replace(planned, computed=frozenset(computed)))
    while not job.is_finished:
        denoise(model, [job])
    return job.latents.numpy()


def test_each_edge_equals_a_whole_generation_with_that_segment_reused(model, config):
    session = EngineReplayer(model, config, "tiny").open(Sample("a cat", 4))
    full = final_latents(model, config, range(STEPS))
    for end in range(2, STEPS):
        edges = [(start, end) for start in range(end - 1)]
        expected = [
            np.abs(final_latents(model, config, set(range(STEPS)) - set(range(start + 1, end))) - full).mean()
            for start, _ in edges
        ]
        np.testing.assert_allclose(session.errors(edges), expected, rtol=1e-3, atol=1e-6)
    session.close()


def test_a_direct_edge_costs_nothing(model, config):
    session = EngineReplayer(model, config, "tiny").open(Sample("a cat", 4))
    assert session.errors([(1, 2)])[0] <= 1e-6


def test_a_prompt_that_is_too_long_is_named(model, config):
    with pytest.raises(CalibrationError, match=r"word word.*at most 120"):
        EngineReplayer(model, config, "tiny").open(Sample("word " * 100, 0))


def test_the_highest_version_is_calibrated(weights, tmp_path):
    for version in ("1", "2", "10"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "model.json").write_text("{}" if version == "10" else "broken")
    (tmp_path / "10" / "weights").symlink_to(weights)
    assert open_replayer(tmp_path).provenance().num_inference_steps == 50


def test_provenance_names_what_the_errors_depend_on(model, config):
    provenance = EngineReplayer(model, config, "tiny").provenance()
    assert provenance.model == "tiny"
    assert provenance.weights_hash == model.info.weights_hash
    assert (provenance.num_inference_steps, provenance.guidance_scale) == (STEPS, 4.0)
    assert (provenance.num_frames, provenance.height, provenance.width) == (16, 48, 48)
