"""What only Wan has: two transformers, and a plan that must not reuse one's residuals on the other."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from lemica_backend.config import load_config
from lemica_backend.engine import load_engine
from lemica_backend.errors import ModelLoadError
from lemica_backend.replay import EngineReplayer
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, Sample, solve_all
from lemica_planner.calibrate import calibrate
from tests.tiny import wan
from tests.tiny.families import FAMILIES
from tests.tiny.family import STEPS, Tiny, assert_close

SWITCH = 3


@pytest.fixture(scope="module")
def two(load):
    return load(FAMILIES["wan-2.2"])


@pytest.fixture
def model_dir(two, tmp_path):
    (tmp_path / "weights").symlink_to(two.folder)
    stated = {"size": two.tiny.size, "options": two.tiny.options, "defaults": {"num_inference_steps": STEPS}}
    (tmp_path / "model.json").write_text(json.dumps(stated))
    return tmp_path


def test_the_second_transformer_takes_over_at_the_boundary(two):
    timesteps = two.model.new_scheduler(STEPS, 0).timesteps
    assert two.model.switches(timesteps) == {SWITCH}
    assert timesteps[SWITCH] < 800 <= timesteps[SWITCH - 1]


def test_a_forecast_does_not_look_back_across_the_switch(two):
    """So at steps 1 and 4 it has the one value that reuse has."""
    names = ("residual-linear", "residual")
    forecast, reuse = (two.ours("a cat", computed=(0, 2, 3, 5), operator=name) for name in names)
    assert torch.equal(forecast, reuse)
    further = two.ours("a cat", computed=(0, 1, 3, 5), operator="residual-linear")
    assert not torch.equal(further, two.ours("a cat", computed=(0, 1, 3, 5)))


def test_a_calibrated_plan_computes_the_switch_and_is_served(two, model_dir, tmp_path):
    replayer = EngineReplayer(two.model, two.config, "tiny")
    graph = calibrate(replayer, [Sample("a cat", 7)], max_span=4, journal=tmp_path / "journal")
    plan = CachePlan.from_graph(graph)
    assert min(plan.entries) == min(solve_all(graph)) == 3
    assert all(SWITCH in entry.steps for entry in plan.entries.values())
    engine = load_engine(model_dir, load_config(model_dir / "model.json"), plan.to_json())
    result = engine.generate(GenerationRequest("a cat", seed=7, budget="3"))
    engine.close()
    assert result.info["computed_steps"] == [0, SWITCH, 5]
    assert np.abs(result.latents - two.ours("a cat", computed=(0, SWITCH, 5)).numpy()).max() <= 1e-5


def test_a_plan_that_skips_the_switch_is_refused(two, model_dir):
    provenance = EngineReplayer(two.model, two.config, "tiny").provenance()
    plan = CachePlan.from_steps(provenance, {4: (0, 3, 4, 5), 3: (0, 2, 5)})
    with pytest.raises(ModelLoadError, match="budget 3 skips step 3, where the model's second transformer"):
        load_engine(model_dir, load_config(model_dir / "model.json"), plan.to_json())


def test_another_guidance_of_the_second_transformer_is_another_model(two, model_dir):
    provenance = EngineReplayer(two.model, two.config, "tiny").provenance()
    other = dataclasses.replace(provenance, scheduler_config={**provenance.scheduler_config, "guidance_scale_2": 2.0})
    plan = CachePlan.from_steps(other, {4: (0, 3, 4, 5)})
    with pytest.raises(ModelLoadError, match=r"guidance_scale_2.*2\.0.*3\.0"):
        load_engine(model_dir, load_config(model_dir / "model.json"), plan.to_json())


@pytest.mark.parametrize(
    ("build", "options", "says"),
    [
        (wan.tiny_wan, {"guidance_scale_2": 3.0}, "no second transformer"),
        (lambda: wan.tiny_wan(boundary_ratio=0.8), {}, "boundary_ratio and transformer_2, or neither"),
        (lambda: wan.tiny_wan(experts=2), {}, "boundary_ratio and transformer_2, or neither"),
    ],
)
def test_half_a_second_transformer_is_refused(load, build, options, says):
    with pytest.raises(ModelLoadError, match=says):
        load(Tiny("wan", "half", build, wan.SIZE, options))


def test_the_autoencoder_stays_in_float32(two):
    model = two.in_dtype(torch.bfloat16).model
    assert model._pipeline.vae.dtype == torch.float32
    assert model._net.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16


def test_what_the_pipeline_cleans_away_does_not_count_as_tokens(load):
    loaded = load(FAMILIES["wan-unipc"])
    spaced = "a" + " " * 600 + "cat &amp;amp; dog"
    assert_close(loaded.ours(spaced), loaded.theirs(spaced))
