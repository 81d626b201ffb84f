"""The step cache in real, tiny pipelines of diffusers: against the engine, against a cache made by hand, and broken."""

import copy
import inspect

import pytest
import torch

from lemica_backend.config import ModelConfig
from lemica_backend.engine import Engine
from lemica_backend.types import GenerationRequest
from lemica_planner.integrations.diffusers import apply
from tests.planner.tiny_diffusers import (
    LISTS,
    STEPS,
    ByHand,
    count_blocks,
    generate,
    latte_latents,
    make_plan,
    tiny_cogvideox,
    tiny_wan,
    tiny_wan_euler,
    tiny_wan_half,
)

BUILDERS = (tiny_wan, tiny_wan_euler, tiny_wan_half, tiny_cogvideox)


@pytest.mark.parametrize("budget", ["full", 6])
@pytest.mark.parametrize("build", BUILDERS)
def test_computing_every_step_changes_no_bit(build, budget):
    pipeline = build()
    plain = generate(pipeline)
    with apply(pipeline, make_plan(), budget):
        assert torch.equal(generate(pipeline), plain)


@pytest.mark.parametrize("budget", ["full", 6])
def test_computing_every_step_of_latte_changes_no_bit(latte, latte_plan, budget):
    plain = latte_latents(latte)
    with apply(latte, latte_plan, budget):
        assert torch.equal(latte_latents(latte), plain)


@pytest.mark.parametrize("budget", ["slow", "fast"])
def test_latte_equals_the_engine(latte, latte_model, latte_plan, budget):
    config = ModelConfig.model_validate({"defaults": {"num_inference_steps": STEPS, "guidance_scale": 4.0}})
    engine = Engine(latte_model, config, latte_plan)
    try:
        expected = torch.from_numpy(engine.generate(GenerationRequest("a red circle", seed=7, budget=budget)).latents)
    finally:
        engine.close()
    plain = latte_latents(latte)[0]
    with apply(latte, latte_plan, budget):
        ours = latte_latents(latte)[0]
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)
    assert (ours - plain).abs().max() > 1e-2


@pytest.mark.parametrize("budget", [3, 4])
@pytest.mark.parametrize("build", BUILDERS)
def test_it_equals_a_cache_made_by_hand(build, budget):
    by_hand = build()
    expected = ByHand(by_hand, LISTS[budget]).generate(by_hand)
    pipeline = build()
    plain = generate(pipeline)
    with apply(pipeline, make_plan(), budget):
        ours = generate(pipeline)
    assert (ours - expected).abs().max() <= 1e-5
    assert (ours - plain).abs().max() > 1e-2


def test_blocks_may_write_into_their_input():
    def double(_module, args):
        args[0].mul_(2)

    by_hand, pipeline = tiny_wan(), tiny_wan()
    for each in (by_hand, pipeline):
        each.transformer.blocks[0].norm1.register_forward_pre_hook(double)
    expected = ByHand(by_hand, LISTS[3]).generate(by_hand)
    with apply(pipeline, make_plan(), "fast"):
        assert (generate(pipeline) - expected).abs().max() <= 1e-5


def test_skipped_steps_run_no_block():
    pipeline = tiny_wan()
    ran = count_blocks(pipeline)
    with apply(pipeline, make_plan(), "fast") as installed:
        assert installed.computed_steps == ()
        generate(pipeline)
        assert len(ran) == 2 * 3  # two branches
        assert installed.computed_steps == installed.steps == (0, 2, 5)
        generate(pipeline, guidance_scale=1.0)
    assert len(ran) == 2 * 3 + 3


def test_generations_do_not_see_each_other():
    pipeline = tiny_wan()
    with apply(pipeline, make_plan(), "fast"):
        first = generate(pipeline)
        other = generate(pipeline, generator=torch.Generator().manual_seed(8), num_frames=5)
        assert torch.equal(generate(pipeline), first)
    assert other.shape != first.shape


@pytest.mark.parametrize("calls", range(1, 2 * 3 + 1))
def test_a_generation_after_a_broken_one_is_as_any_other(calls):
    """Broken off inside each of the six calls that compute: in either branch, before and after skipped steps."""
    pipeline = tiny_wan()
    expected = ByHand(by_hand := tiny_wan(), LISTS[3]).generate(by_hand)
    with apply(pipeline, make_plan(), "fast"):
        ran = []

        def break_off(*_):
            ran.append(1)
            if len(ran) == calls:
                raise KeyboardInterrupt

        fuse = pipeline.transformer.blocks[1].attn1.register_forward_hook(break_off)
        with pytest.raises(KeyboardInterrupt):
            generate(pipeline, generator=torch.Generator().manual_seed(8))
        fuse.remove()
        assert (generate(pipeline) - expected).abs().max() <= 1e-5


def test_latte_after_an_error_in_a_callback(latte, latte_plan):
    def fail(_pipeline, step, _timestep, _tensors):
        raise RuntimeError(f"at step {step}")

    with apply(latte, latte_plan, "fast"):
        expected = latte_latents(latte)
        with pytest.raises(RuntimeError, match="at step 0"):
            latte_latents(latte, callback_on_step_end=fail, callback_on_step_end_tensor_inputs=["latents"])
        assert torch.equal(latte_latents(latte), expected)


def test_removing_gives_the_pipeline_back():
    pipeline = tiny_wan()
    plain, parameters = generate(pipeline), inspect.signature(pipeline.scheduler.step).parameters
    before = set(vars(pipeline.scheduler))
    installed = apply(pipeline, make_plan(), "fast")
    assert inspect.signature(pipeline.scheduler.step).parameters == parameters
    assert not torch.equal(generate(pipeline), plain)
    installed.remove()
    installed.remove()
    assert torch.equal(generate(pipeline), plain)
    assert set(vars(pipeline.scheduler)) == before
    with pytest.raises(ZeroDivisionError), apply(pipeline, make_plan(), "slow"):
        raise ZeroDivisionError
    assert torch.equal(generate(pipeline), plain)


def test_a_copy_of_the_scheduler_steps_itself():
    pipeline = tiny_wan_euler()

    def step_a_copy(_pipeline, _step, _timestep, tensors):
        copied = copy.deepcopy(pipeline.scheduler)
        copied.set_timesteps(3)
        copied.step(torch.ones(1), copied.timesteps[0], torch.ones(1))
        assert (copied.step_index, len(copied.timesteps)) == (1, 3)
        return tensors

    with apply(pipeline, make_plan(), "fast") as installed:
        expected = generate(pipeline)
        assert torch.equal(generate(pipeline, callback_on_step_end=step_a_copy), expected)
        assert installed.computed_steps == (0, 2, 5)
