"""The family `pipeline`: pipelines of diffusers as they are, with the step cache in their hooks."""

import threading
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from lemica_backend.config import ModelConfig
from lemica_backend.engine import Engine, Workers
from lemica_backend.errors import GenerationError, InvalidRequestError, ModelLoadError, RequestCancelledError
from lemica_backend.opening import open_worker
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, Provenance
from tests import tiny_latte
from tests.tiny import other_images, other_videos, others
from tests.tiny.families import FAMILIES
from tests.tiny.family import Tiny, reused_by_hand

STEPS = 6
SKIPPING = (0, 2, 3, 5)
SIZE = {"height": tiny_latte.SIZE, "width": tiny_latte.SIZE}
PLAIN = {"clean_caption": False, "max_sequence_length": 64}
EMPTY = {"negative_prompt": ""}
GUIDED = {"negative_prompt": " ", "true_cfg_scale": 3.0}
SANA = {"frames": 5, "use_resolution_binning": False, "complex_human_instruction": None}  # not num_frames
ALLEGRO = {"height": 64, "width": 48, "num_frames": 8}
TINY = FAMILIES | {
    each.name: each
    for each in (
        Tiny("skyreels", "v2", others.tiny_skyreels, others.VIDEO),
        Tiny("flux", "dev", others.tiny_flux, others.IMAGE),
        Tiny("pixart", "sigma", others.pixart_sigma, others.IMAGE, {}, {**PLAIN, "use_resolution_binning": False}),
        Tiny("qwen", "image", other_images.tiny_qwen_image, others.IMAGE, {}, GUIDED),
        Tiny("z", "image", other_images.tiny_z_image, others.IMAGE),
        Tiny("easyanimate", "5.1", other_videos.tiny_easyanimate, others.VIDEO, {}, EMPTY),
        Tiny("sana", "video", other_videos.tiny_sana_video, {"height": 32, "width": 64}, {}, SANA),
        Tiny("cosmos", "1", other_videos.tiny_cosmos, others.VIDEO),
        Tiny("kandinsky", "5", other_videos.tiny_kandinsky, others.VIDEO),
        Tiny("allegro", "1", others.allegro, ALLEGRO, {}, PLAIN, shrink=lambda pipeline: pipeline.vae.enable_tiling()),
    )
}
OTHERS = [name for name in TINY if name not in FAMILIES]
SERVED = [
    "latte-plain",
    "wan-unipc",
    "cogvideox-2b",
    "hunyuan_video-embedded",
    "ltx-0.9",
    "mochi-1",
    *OTHERS,
]


class Harmless:
    """What Cosmos wants to judge texts and videos, whose weights are on the hub."""

    def to(self, _device):
        return self

    def check_text_safety(self, _text):
        return True

    def check_video_safety(self, frames):
        return frames


@pytest.fixture(autouse=True, scope="module")
def judge():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.pipelines.cosmos.pipeline_cosmos_text2world.CosmosSafetyChecker", Harmless)
        yield


class Opened:
    """Opens one worker in this process, as `lemica_backend.worker.WorkerSource` does."""

    device = "this process"

    def __init__(self, worker):
        self.worker = worker

    def open(self, on_end, *, measures):
        return self.worker

    def kill(self):
        pass

    def close(self):
        pass


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            TINY[name].build().save_pretrained(made[name] / "weights")
        return made[name]

    return folder


def config_of(name, **changed):
    tiny = TINY[name]
    return ModelConfig.model_validate(
        {
            "family": "pipeline",
            "size": tiny.size or SIZE,
            "options": {name: value for name, value in tiny.arguments.items() if name not in SIZE},
            "defaults": {"num_inference_steps": STEPS, "guidance_scale": 4.0},
            "limits": {"max_active": 1},
            "decode": {"tiling": name == "allegro-1"},  # it decodes in no other way
        }
        | changed
    )


@pytest.fixture
def serve(folders):
    engines = []

    def serve(name, plan=True, **changed):
        config = config_of(name, **changed)
        worker = open_worker(folders(name), config, "cpu", None, measures=True)
        provenance = Provenance(num_inference_steps=STEPS)
        plans = CachePlan.from_steps(provenance, {4: SKIPPING, 2: (0, 5)}, names={"fast": 4}) if plan else None
        engines.append(Engine(Workers((Opened(worker),)), config, plans))
        return engines[-1]

    yield serve
    for engine in engines:
        engine.close()


def theirs(name, folder, computed=range(STEPS), kind="np"):
    tiny = TINY[name]
    pipeline = type(tiny.build()).from_pretrained(folder / "weights", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    tiny.shrink(pipeline)
    call = {"prompt": "a cat", "num_inference_steps": STEPS, "guidance_scale": 4.0, "output_type": kind}
    call |= {**tiny.size, **tiny.arguments, "generator": torch.Generator().manual_seed(7)}
    with reused_by_hand(pipeline, computed) if len(computed) < STEPS else nullcontext():
        made = pipeline(**call)
    return made.images if hasattr(made, "images") else made.frames


@pytest.mark.parametrize("name", SERVED)
def test_everything_computed_is_the_pipeline_itself(serve, folders, name):
    result = serve(name).generate(GenerationRequest("a cat", seed=7, budget="full"))
    expected = theirs(name, folders(name))
    frames = expected[0] if expected.ndim == 5 else expected
    np.testing.assert_array_equal(result.frames, (frames * 255).round().clip(0, 255).astype(np.uint8))
    assert result.info["shares_forwards"] is False
    assert result.info["computed_steps"] == list(range(STEPS))


@pytest.mark.parametrize("name", OTHERS)
def test_skipped_steps_reuse_what_the_blocks_added(serve, folders, name):
    """By hooks of torch in a pipeline of the same weights, which run every block."""
    engine = serve(name)
    skipping, computing = (
        engine.generate(GenerationRequest("a cat", seed=7, budget=each)) for each in ("fast", "full")
    )
    by_hand, full = (theirs(name, folders(name), steps, "latent").numpy() for steps in (SKIPPING, range(STEPS)))
    assert skipping.info["computed_steps"] == list(SKIPPING)
    np.testing.assert_array_equal(computing.latents, full)
    scale = np.abs(full).max()
    assert np.abs(skipping.latents - by_hand).max() <= 1e-5 * scale
    assert np.abs(full - by_hand).max() > 1e-3 * scale  # or reuse would not show


@pytest.mark.parametrize("name", ["latte-plain", "wan-unipc", "ltx-0.9"])
def test_skipped_steps_reuse_what_the_adapter_of_the_family_reuses(serve, folders, name):
    tiny, plan = TINY[name], CachePlan.from_steps(Provenance(num_inference_steps=STEPS), {4: SKIPPING})
    own = ModelConfig.model_validate(
        {"size": tiny.size, "options": tiny.options, "defaults": {"num_inference_steps": STEPS, "guidance_scale": 4.0}}
    )
    worker = open_worker(folders(name), own, "cpu", plan.to_json(), measures=False)
    engine = Engine(Workers((Opened(worker),)), own, plan)
    request = GenerationRequest("a cat", seed=7, budget="4")
    try:
        adapted = engine.generate(request)
    finally:
        engine.close()
    piped = serve(name).generate(request)
    assert [computed for _, computed in piped.info["step_ms"]] == [step in SKIPPING for step in range(STEPS)]
    assert np.abs(piped.frames.astype(int) - adapted.frames).max() <= 1


def test_skipped_steps_run_no_block(serve, folders):
    engine, blocks = serve("wan-unipc"), []
    worker = engine._supervisors[0].source.worker
    transformer = worker._loaded.pipeline.transformer
    hook = transformer.blocks[0].norm1.register_forward_pre_hook(lambda *_: blocks.append(1))
    try:
        engine.generate(GenerationRequest("a cat", seed=7, budget="fast"))
    finally:
        hook.remove()
    assert len(blocks) == 2 * len(SKIPPING)  # guidance calls the transformer twice a step


def test_requests_follow_one_another_and_leave_nothing(serve):
    engine, done, outcomes = serve("latte-plain"), threading.Semaphore(0), {}
    for seed in range(3):
        engine.submit(
            GenerationRequest("a cat", seed=seed, budget=["full", "fast", "2"][seed]),
            on_done=lambda outcome, seed=seed: (outcomes.__setitem__(seed, outcome), done.release()),
        )
    assert all(done.acquire(timeout=120) for _ in range(3))
    assert [outcomes[seed].info["computed_steps"] for seed in range(3)] == [list(range(STEPS)), [0, 2, 3, 5], [0, 5]]
    assert engine.cached_bytes() == 0
    again = engine.generate(GenerationRequest("a cat", seed=1, budget="fast"))
    np.testing.assert_array_equal(again.latents, outcomes[1].latents)


def test_a_cancelled_request_ends_at_its_step_and_the_next_is_served(serve):
    engine, steps, answer, done = serve("wan-unipc"), [], [], threading.Event()
    before = engine.generate(GenerationRequest("a cat", seed=3, budget="fast")).latents
    engine.submit(
        GenerationRequest("a dog", seed=4, budget="fast"),
        on_done=lambda outcome: (answer.append(outcome), done.set()),
        on_step=lambda progress: steps.append(progress.step),
        is_cancelled=lambda: len(steps) >= 2,
    )
    assert done.wait(120)
    assert isinstance(answer[0], RequestCancelledError)
    assert len(steps) < STEPS
    assert not any(thread.name == "lemica-pipeline" for thread in threading.enumerate())
    np.testing.assert_array_equal(engine.generate(GenerationRequest("a cat", seed=3, budget="fast")).latents, before)


def test_latents_that_are_not_finite_end_their_request_alone(serve):
    limits = {"max_active": 1, "max_guidance_scale": 3.1e38}
    engine = serve("latte-plain", limits=limits)
    with pytest.raises(GenerationError, match="not finite"):
        engine.generate(GenerationRequest("a cat", seed=1, guidance_scale=3e38))
    assert engine.generate(GenerationRequest("a cat", seed=1)).frames.any()


def test_a_range_of_budgets_is_served(serve):
    info = serve("latte-plain").generate(GenerationRequest("a cat", seed=1, budget="2..4")).info
    assert info["chosen_budget"] == 4


def test_a_pipeline_without_a_block_stack_is_refused_with_the_reason(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lemica_backend.pipelines.loaded.DiffusionPipeline.from_pretrained", lambda *_, **__: _WithoutStack()
    )
    with pytest.raises(ModelLoadError, match="no block stack"):
        open_worker(folders("latte-plain"), config_of("latte-plain", size={}, options={}), "cpu", None, measures=True)


class _WithoutStack:
    """What `DiffusionPipeline` would load from a folder whose transformer has no list of blocks."""

    def __init__(self):
        self.transformer, self.scheduler = torch.nn.Linear(2, 2), FAMILIES["latte-plain"].build().scheduler

    def set_progress_bar_config(self, **_):
        pass

    def to(self, _):
        return self

    def __call__(self, prompt, num_inference_steps, generator, output_type):
        raise AssertionError("it should be refused before it runs")


def test_more_than_one_request_at_a_time_is_refused_in_the_configuration():
    with pytest.raises(ValueError, match=r"limits\.max_active must be 1"):
        config_of("latte-plain", limits={"max_active": 2})


def test_an_argument_that_the_call_lacks_is_refused_with_those_that_it_takes(folders):
    with pytest.raises(ModelLoadError, match=r"takes no 'sharpness'; it takes .*guidance_scale"):
        open_worker(
            folders("latte-plain"), config_of("latte-plain", options={"sharpness": 1}), "cpu", None, measures=True
        )


def test_an_operator_of_the_adapters_is_refused(serve):
    plan = CachePlan.from_steps(Provenance(num_inference_steps=STEPS, operator="output"), {4: SKIPPING})
    engine = serve("latte-plain", plan=False)
    with pytest.raises(ModelLoadError, match="operator is 'output'; family 'pipeline' serves residual"):
        engine.open_plan(plan.to_json())


def test_it_cannot_be_calibrated(folders):
    from lemica_backend.opening import open_model

    with pytest.raises(ModelLoadError, match="apply --published"):
        open_model(folders("latte-plain"), config_of("latte-plain"))


def test_a_negative_prompt_that_the_call_lacks_is_refused(serve, monkeypatch):
    engine = serve("latte-plain")
    loaded = engine._supervisors[0].source.worker._loaded
    monkeypatch.setattr(type(loaded), "takes", property(lambda _: frozenset({"prompt"})))
    with pytest.raises(InvalidRequestError, match="negative_prompt"):
        engine.generate(GenerationRequest("a cat", seed=1, negative_prompt="blur"))
