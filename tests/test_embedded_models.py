"""The models that ship with the repository: size, layout, plan, parity with a plain sampler, and what they show."""

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
LATTE, OPEN_SORA = (ROOT / "model_repository" / name for name in ("latte_shapes", "opensora_shapes"))
NUM_STEPS = {LATTE: 50, OPEN_SORA: 30}
LEAST_RIGHT = {LATTE: 15, OPEN_SORA: 14}  # of 16 attributes
MAX_BYTES = 30_000_000
HELD_OUT = split_scenes()[1]
CAPTION = HELD_OUT[3].caption


@pytest.fixture(scope="module", params=[LATTE, OPEN_SORA], ids=lambda path: path.name)
def folder(request):
    return request.param


@pytest.fixture(scope="module")
def weights(folder):
    return folder / "1" / "weights"


@pytest.fixture(scope="module")
def plan(folder):
    return read_plan(folder / "config.pbtxt")


@pytest.fixture(scope="module")
def graph(folder):
    return load_graph(folder / "calibration" / "graph.npz")


@pytest.fixture(scope="module")
def engine(folder, plan):
    engine = load_engine(folder / "1", load_config(folder / "1" / "model.json"), plan.to_json())
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def defaults(folder):
    return json.loads((folder / "1" / "model.json").read_text())["defaults"]


@pytest.fixture(scope="module")
def latte():
    from diffusers import LattePipeline

    pipeline = LattePipeline.from_pretrained(LATTE / "1" / "weights", local_files_only=True, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def open_sora():
    return OpenSoraPipeline.from_pretrained(OPEN_SORA / "1" / "weights", dtype=torch.float32)


def test_the_weights_are_small_safetensors(weights):
    assert sum(path.stat().st_size for path in weights.rglob("*") if path.is_file()) <= MAX_BYTES
    assert not list(weights.rglob("*.bin"))


def test_no_file_tells_where_it_was_trained(weights):
    assert not [path for path in weights.rglob("*.json") if "_name_or_path" in path.read_text()]


def test_the_plan_comes_from_the_graph_that_ships_with_it(folder, plan, graph):
    assert set(plan.names) >= {"slow", "medium", "fast"}
    assert plan.provenance.num_inference_steps == NUM_STEPS[folder]
    assert CachePlan.from_graph(graph, names=plan.names) == plan


def test_the_naive_graph_is_of_the_same_model_and_the_first_prompts(folder, plan, graph):
    """Benchmarks compare the plan with those of the paper's operator and metric."""
    naive = ErrorGraph.load(folder / "calibration" / "naive.npz")
    known = naive.provenance
    assert (known.operator, known.metric, known.calibrated) == ("residual", "latents_l1", True)
    assert known.weights_hash == plan.provenance.weights_hash
    assert naive.samples == graph.samples[: len(naive.samples)]


def test_it_shows_what_captions_name(folder, engine):
    """A few clips: `make evaluate` measures the shares of all four attributes on many."""
    right = 0
    for number, scene in enumerate(HELD_OUT[:4]):
        seen = recognise(engine.generate(GenerationRequest(scene.caption, seed=7000 + number, budget="slow")).frames)
        right += sum(named == shown for named, shown in zip(scene, seen, strict=True))
    assert right >= LEAST_RIGHT[folder]


@pytest.mark.parametrize("folder", [LATTE], indirect=True, ids=["latte_shapes"])
def test_full_equals_the_pipeline_of_latte(engine, defaults, latte):
    ours = engine.generate(GenerationRequest(CAPTION, seed=11, budget="full"))
    theirs = latte(
        CAPTION,
        num_inference_steps=defaults["num_inference_steps"],
        guidance_scale=defaults["guidance_scale"],
        generator=torch.Generator().manual_seed(11),
        height=None,
        width=None,
        output_type="latent",
        clean_caption=False,
    ).frames[0]
    assert np.abs(ours.latents - theirs.numpy()).max() <= 1e-5


@pytest.mark.parametrize("folder", [OPEN_SORA], indirect=True, ids=["opensora_shapes"])
def test_full_equals_a_plain_sampler_of_open_sora(engine, defaults, open_sora):
    ours = engine.generate(GenerationRequest(CAPTION, seed=11, budget="full")).latents
    theirs = reference.sample(
        open_sora,
        CAPTION,
        seed=11,
        steps=defaults["num_inference_steps"],
        guidance_scale=defaults["guidance_scale"],
        latent_frames=16,
    )
    assert np.abs(ours - theirs).max() <= 1e-5 * max(1.0, np.abs(theirs).max())


def test_latte_has_the_standard_layout(latte):
    parts = {name: type(part).__name__ for name, part in latte.components.items()}
    assert parts["transformer"] == "LatteTransformer3DModel"
    assert parts["vae"] == "AutoencoderKL"
    assert parts["text_encoder"] == "T5EncoderModel"
    assert parts["scheduler"] == "DDIMScheduler"


def test_patches_of_latte_differ_from_frames(latte):
    net = latte.transformer.config
    assert (net.sample_size // net.patch_size) ** 2 != net.video_length
    assert net.video_length == 16
    assert net.sample_size * latte.vae_scale_factor >= 64


def test_open_sora_is_a_rectified_flow_of_as_many_frames(open_sora):
    assert type(open_sora.scheduler).__name__ == "RectifiedFlowScheduler"
    assert open_sora.video.num_frames == 16
    assert open_sora.video.height >= 64


def test_calibration_prompts_were_trained_and_the_test_prompts_were_not():
    held_out = {scene.caption for scene in HELD_OUT}

    def read(path):
        return {line for line in path.read_text().splitlines() if line and not line.startswith("#")}

    assert read(LATTE / "calibration" / "prompts.txt").isdisjoint(held_out)
    assert read(ROOT / "benchmarks" / "held_out_prompts.txt") <= held_out
    assert read(ROOT / "demo" / "prompts.txt") <= held_out


def test_both_models_were_calibrated_on_the_same_prompts():
    ours, first = (folder / "calibration" / "prompts.txt" for folder in (OPEN_SORA, LATTE))
    assert ours.read_text() == first.read_text()
