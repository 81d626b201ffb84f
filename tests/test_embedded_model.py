"""The model that ships with the repository: size, layout, plan, parity with its pipeline, and what it shows."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lemica_backend.config import load_config
from lemica_backend.engine import load_engine
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, ErrorGraph
from lemica_planner.config_writer import read_plan
from lemica_planner.graph_file import load_graph
from shapes.checker import recognise
from shapes.scene import split_scenes

FOLDER = Path(__file__).parents[1] / "model_repository" / "latte_shapes"
WEIGHTS = FOLDER / "1" / "weights"
MAX_BYTES = 30_000_000


@pytest.fixture(scope="module")
def plan():
    return read_plan(FOLDER / "config.pbtxt")


@pytest.fixture(scope="module")
def graph():
    return load_graph(FOLDER / "calibration" / "graph.npz")


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import LattePipeline

    pipeline = LattePipeline.from_pretrained(WEIGHTS, local_files_only=True, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


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


def test_the_layout_is_the_standard_one(pipeline):
    parts = {name: type(part).__name__ for name, part in pipeline.components.items()}
    assert parts["transformer"] == "LatteTransformer3DModel"
    assert parts["vae"] == "AutoencoderKL"
    assert parts["text_encoder"] == "T5EncoderModel"
    assert parts["scheduler"] == "DDIMScheduler"


def test_patches_differ_from_frames(pipeline):
    net = pipeline.transformer.config
    assert (net.sample_size // net.patch_size) ** 2 != net.video_length
    assert net.video_length == 16
    assert net.sample_size * pipeline.vae_scale_factor >= 64


def test_the_plan_comes_from_the_graph_that_ships_with_it(plan, graph):
    assert set(plan.names) >= {"slow", "medium", "fast"}
    assert CachePlan.from_graph(graph, names=plan.names) == plan


def test_the_naive_graph_is_of_the_same_model_and_the_first_prompts(plan, graph):
    """Benchmarks compare the plan with those of the paper's operator and metric."""
    naive = ErrorGraph.load(FOLDER / "calibration" / "naive.npz")
    known = naive.provenance
    assert (known.operator, known.metric, known.calibrated) == ("residual", "latents_l1", True)
    assert known.weights_hash == plan.provenance.weights_hash
    assert naive.samples == graph.samples[: len(naive.samples)]


def test_calibration_prompts_were_trained_and_the_test_prompts_were_not():
    held_out = {scene.caption for scene in split_scenes()[1]}

    def read(path):
        return {line for line in path.read_text().splitlines() if line and not line.startswith("#")}

    root = FOLDER.parents[1]
    assert read(FOLDER / "calibration" / "prompts.txt").isdisjoint(held_out)
    assert read(root / "benchmarks" / "held_out_prompts.txt") <= held_out
    assert read(root / "demo" / "prompts.txt") <= held_out


def test_full_equals_the_pipeline(engine, pipeline):
    defaults = json.loads((FOLDER / "1" / "model.json").read_text())["defaults"]
    caption = split_scenes()[1][3].caption
    ours = engine.generate(GenerationRequest(caption, seed=11, budget="full"))
    theirs = pipeline(
        caption,
        num_inference_steps=defaults["num_inference_steps"],
        guidance_scale=defaults["guidance_scale"],
        generator=torch.Generator().manual_seed(11),
        height=None,
        width=None,
        output_type="latent",
        clean_caption=False,
    ).frames[0]
    assert np.abs(ours.latents - theirs.numpy()).max() <= 1e-5


def test_it_shows_what_captions_name(engine):
    """A few clips: `make evaluate` measures the shares of all four attributes on many."""
    right = 0
    for number, scene in enumerate(split_scenes()[1][:4]):
        seen = recognise(engine.generate(GenerationRequest(scene.caption, seed=7000 + number, budget="slow")).frames)
        right += sum(named == shown for named, shown in zip(scene, seen, strict=True))
    assert right >= 15  # of 16
