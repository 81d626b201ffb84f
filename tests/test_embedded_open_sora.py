"""The second model that ships with the repository: layout, plan, parity with a plain sampler, and what it shows."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lemica_backend.config import load_config
from lemica_backend.engine import load_engine
from lemica_backend.models.open_sora import OpenSoraPipeline
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, ErrorGraph
from lemica_planner.config_writer import read_plan
from lemica_planner.graph_file import load_graph
from shapes.checker import recognise
from shapes.scene import split_scenes
from tests.open_sora import reference

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "model_repository" / "opensora_shapes"
FIRST = ROOT / "model_repository" / "latte_shapes"
WEIGHTS = FOLDER / "1" / "weights"
MAX_BYTES = 30_000_000


@pytest.fixture(scope="module")
def plan():
    return read_plan(FOLDER / "config.pbtxt")


@pytest.fixture(scope="module")
def pipeline():
    return OpenSoraPipeline.from_pretrained(WEIGHTS, dtype=torch.float32)


@pytest.fixture(scope="module")
def engine(plan):
    engine = load_engine(FOLDER / "1", load_config(FOLDER / "1" / "model.json"), plan.to_json())
    yield engine
    engine.close()


def test_the_weights_are_small_safetensors():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= MAX_BYTES
    assert not list(WEIGHTS.rglob("*.bin"))


def test_no_file_tells_where_it_was_trained():
    assert not [path for path in WEIGHTS.rglob("*.json") if "_name_or_path" in path.read_text()]


def test_it_is_a_rectified_flow_of_as_many_frames_as_the_first_model(pipeline):
    assert type(pipeline.scheduler).__name__ == "RectifiedFlowScheduler"
    assert pipeline.video.num_frames == 16
    assert pipeline.video.height >= 64


def test_the_plan_comes_from_the_graph_that_ships_with_it(plan):
    assert set(plan.names) >= {"slow", "medium", "fast"}
    assert plan.provenance.num_inference_steps == 30
    assert CachePlan.from_graph(load_graph(FOLDER / "calibration" / "graph.npz"), names=plan.names) == plan


def test_the_naive_graph_is_of_the_same_model(plan):
    known = ErrorGraph.load(FOLDER / "calibration" / "naive.npz").provenance
    assert (known.operator, known.metric, known.calibrated) == ("residual", "latents_l1", True)
    assert known.weights_hash == plan.provenance.weights_hash


def test_both_models_were_calibrated_on_the_same_prompts():
    ours, first = (folder / "calibration" / "prompts.txt" for folder in (FOLDER, FIRST))
    assert ours.read_text() == first.read_text()


def test_full_equals_a_plain_sampler(engine, pipeline):
    defaults = json.loads((FOLDER / "1" / "model.json").read_text())["defaults"]
    caption = split_scenes()[1][3].caption
    ours = engine.generate(GenerationRequest(caption, seed=11, budget="full")).latents
    theirs = reference.sample(
        pipeline,
        caption,
        seed=11,
        steps=defaults["num_inference_steps"],
        guidance_scale=defaults["guidance_scale"],
        latent_frames=16,
    )
    assert np.abs(ours - theirs).max() <= 1e-5 * max(1.0, np.abs(theirs).max())


def test_it_shows_what_captions_name(engine):
    """A few clips: `make evaluate` measures the shares of all four attributes on many."""
    right = 0
    for number, scene in enumerate(split_scenes()[1][:4]):
        seen = recognise(engine.generate(GenerationRequest(scene.caption, seed=7000 + number, budget="slow")).frames)
        right += sum(named == shown for named, shown in zip(scene, seen, strict=True))
    assert right >= 14  # of 16
