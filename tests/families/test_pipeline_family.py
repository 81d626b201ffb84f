"""The family `pipeline`: pipelines of diffusers as they are, with the step cache in their hooks."""

import threading

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
from tests.tiny import others
from tests.tiny.families import FAMILIES
from tests.tiny.family import Tiny

STEPS = 6
SKIPPING = (0, 2, 3, 5)
SIZE = {"height": tiny_latte.SIZE, "width": tiny_latte.SIZE}
PLAIN = {"clean_caption": False, "max_sequence_length": 64}
TINY = FAMILIES | {
    each.name: each
    for each in (
        Tiny("skyreels", "v2", others.tiny_skyreels, others.VIDEO),
        Tiny("flux", "dev", others.tiny_flux, others.IMAGE),
        Tiny("pixart", "sigma", others.pixart_sigma, others.IMAGE, {}, {**PLAIN, "use_resolution_binning": False}),
    )
}
SERVED = [
    "latte-plain",
    "wan-unipc",
    "cogvideox-2b",
    "hunyuan_video-embedded",
    "ltx-0.9",
    "mochi-1",
    "skyreels-v2",
    "flux-dev",
    "pixart-sigma",
]


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


def theirs(name, folder):
    tiny = TINY[name]
    pipeline = type(tiny.build()).from_pretrained(folder / "weights", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    call = {"prompt": "a cat", "num_inference_steps": STEPS, "guidance_scale": 4.0}
    generator = torch.Generator().manual_seed(7)
    made = pipeline(**call, **tiny.size, **tiny.arguments, generator=generator, output_type="np")
    return made.images if hasattr(made, "images") else made.frames[0]


@pytest.mark.parametrize("name", SERVED)
def test_everything_computed_is_the_pipeline_itself(serve, folders, name):
    result = serve(name).generate(GenerationRequest("a cat", seed=7, budget="full"))
    expected = (theirs(name, folders(name)) * 255).round().clip(0, 255).astype(np.uint8)
    np.testing.assert_array_equal(result.frames, expected)
    assert result.info["shares_forwards"] is False
    assert result.info["computed_steps"] == list(range(STEPS))


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
