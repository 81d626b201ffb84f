"""Pipelines and generations that the step cache refuses, and calls that no pipeline of diffusers makes."""

import copy
from contextlib import nullcontext

import pytest
import torch
from diffusers import (
    DDPMPipeline,
    DDPMScheduler,
    FirstBlockCacheConfig,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)
from torch import nn

from lemica_planner import PlanMismatchError, UnknownBudgetError
from lemica_planner.integrations.diffusers import PipelineError, apply
from tests.planner.tiny_diffusers import (
    STEPS,
    count_blocks,
    generate,
    make_plan,
    skyreels_diffusion_forcing,
    tiny_cogvideox,
    tiny_wan,
    tiny_wan_euler,
)


def test_another_number_of_steps_is_refused():
    pipeline = tiny_wan()
    ran = count_blocks(pipeline)
    with (
        apply(pipeline, make_plan(), "fast"),
        pytest.raises(PlanMismatchError, match="num_inference_steps: plan 6, served 5"),
    ):
        generate(pipeline, num_inference_steps=5)
    assert not ran
    plain = generate(pipeline, num_inference_steps=5)
    with apply(pipeline, make_plan(), "full"):
        assert torch.equal(generate(pipeline, num_inference_steps=5), plain)


def test_another_scheduler_is_refused_at_once():
    pipeline = tiny_wan()
    with pytest.raises(PlanMismatchError, match="scheduler: plan 'DDIMScheduler', served 'UniPCMultistepScheduler'"):
        apply(pipeline, make_plan(scheduler="DDIMScheduler"), "fast")
    config = dict(pipeline.scheduler.config) | {"flow_shift": 5.0}
    with pytest.raises(PlanMismatchError, match=r"scheduler_config.flow_shift: plan 5.0, served 3.0"):
        apply(pipeline, make_plan(scheduler_config=config), "fast")
    with pytest.raises(PlanMismatchError, match="operator: plan 'taylor', served 'residual, residual-linear"):
        apply(pipeline, make_plan(operator="taylor"), "fast")
    generate(pipeline, num_inference_steps=2)  # nothing was left behind


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"guidance_scale": 5.0}, "guidance_scale: plan 5.0, served 4.0"),
        ({"num_frames": 13}, "num_frames: plan 13, served 9"),
        ({"height": 72}, "height: plan 72, served 64"),
        ({"width": 56}, "width: plan 56, served 64"),
    ],
)
@pytest.mark.parametrize("build", [tiny_wan, tiny_cogvideox])
def test_another_generation_is_refused(build, stated, message):
    pipeline = build()
    with apply(pipeline, make_plan(**stated), "fast"), pytest.raises(PlanMismatchError, match=message):
        generate(pipeline)
    agreed = make_plan(guidance_scale=4.0, num_frames=9, height=64, width=64)
    same_latents = make_plan(num_frames=12, height=71, width=64)
    for plan in (agreed, same_latents):
        with apply(pipeline, plan, "fast"):
            generate(pipeline)


def test_an_unknown_budget_is_refused():
    with pytest.raises(UnknownBudgetError, match="available: full, slow"):
        apply(tiny_wan(), make_plan(), "quick")


def refuse(pipeline, message):
    with pytest.raises(PipelineError, match=message):
        apply(pipeline, make_plan(), "fast")


def test_a_pipeline_without_a_transformer_is_refused():
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(4,),
        norm_num_groups=2,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    refuse(DDPMPipeline(unet, DDPMScheduler()), "DDPMPipeline .* looked for a `transformer` .* got NoneType")


def test_a_transformer_without_a_block_stack_is_refused():
    pipeline = tiny_wan()
    del pipeline.transformer.blocks
    refuse(pipeline, r"names end in 'blocks', or named 'layers' \(found none\).*norm_out.*its children are .*'rope'")
    pipeline = tiny_wan()
    pipeline.transformer.more_blocks = nn.ModuleList([nn.Identity()])
    refuse(pipeline, r"found \['blocks', 'more_blocks'\].*first module declared after them.*\(found none\)")


def test_a_second_transformer_is_refused():
    pipeline = tiny_wan()
    pipeline.transformer_2 = tiny_wan().transformer
    refuse(pipeline, "transformer_2")


def test_another_cache_is_refused():
    pipeline = tiny_wan()
    with apply(pipeline, make_plan(), "slow"):
        refuse(pipeline, r"installed in this pipeline already; call remove\(\)")
        sharing = tiny_wan(pipeline.scheduler)
        refuse(sharing, "uses this scheduler")
    pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    refuse(pipeline, "disable_cache")


def test_another_scheduler_after_installing_is_refused():
    pipeline = tiny_wan()
    with apply(pipeline, make_plan(), "fast"):
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
        with pytest.raises(PipelineError, match="another scheduler after apply"):
            generate(pipeline)


def test_a_transformer_that_uses_its_blocks_elsewhere_is_refused():
    pipeline, seen = tiny_wan(), []
    net = pipeline.transformer
    net.blocks[-1].register_forward_hook(lambda _module, _args, output: seen.append(output))
    net.proj_out.register_forward_hook(lambda _module, _args, output: output + seen[-1].mean())
    with apply(pipeline, make_plan(), "fast"), pytest.raises(PipelineError, match="one stream"):
        generate(pipeline)


def test_a_stack_whose_last_block_returns_two_streams_and_has_nothing_after_it_is_refused():
    pipeline = tiny_wan()
    net = pipeline.transformer
    head = nn.ModuleList([net.norm_out, net.proj_out])  # lists are nothing that follows
    del net.norm_out, net.proj_out
    net.register_module("head", head)
    object.__setattr__(net, "norm_out", lambda both: head[0](both[0]))
    object.__setattr__(net, "proj_out", head[1].forward)
    last = net.blocks[-1].forward
    net.blocks[-1].forward = lambda *args: (last(*args), args[1])
    with apply(pipeline, make_plan(), "fast"), pytest.raises(PipelineError, match=r"the last block, has .* in a tuple"):
        generate(pipeline)


def test_a_stack_that_changes_shape_is_refused():
    pipeline = tiny_wan()
    pipeline.transformer.blocks.append(nn.Upsample(scale_factor=2))
    pipeline.transformer.blocks[-1].forward = lambda hidden, *_: hidden.repeat(1, 2, 1)
    with apply(pipeline, make_plan(), "fast"), pytest.raises(PipelineError, match="keep the shape"):
        generate(pipeline)


class OwnLoop:
    """A denoising loop of a user's own, on the transformer and scheduler of a pipeline."""

    def __init__(self):
        self.pipeline = tiny_wan_euler()
        self.latents = torch.randn((1, 4, 3, 8, 8), generator=torch.Generator().manual_seed(0))
        self.text = torch.randn((1, 7, 32), generator=torch.Generator().manual_seed(1))

    def set_timesteps(self):
        self.pipeline.scheduler.set_timesteps(STEPS)

    @torch.no_grad()
    def call(self, context, shift=0, rows=1):
        net, latents = self.pipeline.transformer, (self.latents + shift).expand(rows, -1, -1, -1, -1)
        with net.cache_context(context) if context else nullcontext():
            return net(latents, torch.full((rows,), 500.0), self.text.expand(rows, -1, -1)).sample

    def step(self):
        scheduler = self.pipeline.scheduler
        index = scheduler.step_index or 0
        scheduler.step(torch.zeros_like(self.latents), scheduler.timesteps[index], self.latents)


def test_a_branch_without_a_residual_computes():
    loop = OwnLoop()
    plain = {rows: loop.call("cond", rows=rows) for rows in (1, 2)}
    with apply(loop.pipeline, make_plan(), "fast") as installed:  # computes 0, 2, 5
        loop.set_timesteps()
        loop.call("uncond", shift=1)
        loop.step(), loop.step()
        loop.call("cond", shift=1)
        loop.step()
        assert not torch.equal(loop.call("cond"), plain[1])  # reused
        assert installed.computed_steps == (0, 2)
        assert torch.equal(loop.call("uncond"), plain[1])  # its residual of step 0 is too old
        assert torch.equal(loop.call("guided"), plain[1])
        assert torch.equal(loop.call("cond", rows=2), plain[2])
        assert installed.computed_steps == (0, 2, 3)


def test_a_residual_of_another_shape_is_not_reused():
    loop = OwnLoop()
    plain = loop.call("cond", rows=2)
    with apply(loop.pipeline, make_plan(), "fast"):
        loop.set_timesteps()
        loop.call("cond", shift=1)
        loop.step()
        assert torch.equal(loop.call("cond", rows=2), plain)


@pytest.mark.parametrize("context", ["cond", None])
def test_every_call_of_a_step_has_its_own_residual(context):
    """Named calls are told apart by their names, in whatever order they come; those of one name by their order."""
    loop = OwnLoop()
    with apply(loop.pipeline, make_plan(), "fast"):
        loop.set_timesteps()
        computed = [loop.call(context, shift=shift) for shift in (1, 2)]
        named = loop.call("uncond", shift=3)
        loop.step()
        assert (loop.call("uncond", shift=3) - named).abs().max() <= 1e-5
        reused = [loop.call(context, shift=shift) for shift in (1, 2)]
    for one, other in zip(computed, reused, strict=True):
        assert (one - other).abs().max() <= 1e-5


def test_calls_outside_a_generation_are_refused():
    loop = OwnLoop()
    with apply(loop.pipeline, make_plan(), "fast"):
        with pytest.raises(PipelineError, match="before set_timesteps"):
            loop.call("cond")
        loop.set_timesteps()
        for _ in range(STEPS):
            loop.step()
        with pytest.raises(PipelineError, match="after the last of 6 steps"):
            loop.call("cond")


def test_steps_that_cannot_be_seen_are_refused():
    loop = OwnLoop()
    with apply(loop.pipeline, make_plan(), "fast"):
        loop.set_timesteps()
        for _ in range(8):
            loop.call("cond")
        with pytest.raises(PipelineError, match="9 times without a step"):
            loop.call("cond")


def test_steps_of_a_copied_scheduler_are_refused():
    """As diffusion forcing does, where each frame has a scheduler: without this, every step would compute unnoticed."""
    pipeline = skyreels_diffusion_forcing()
    with apply(pipeline, make_plan(), "fast"), pytest.raises(PipelineError, match="2 times without a step"):
        generate(pipeline, prompt=None)


def test_copies_that_step_beside_the_scheduler_are_let_be():
    """As with a second stream's scheduler, stepped before the pipeline's or after it."""
    loop = OwnLoop()
    with apply(loop.pipeline, make_plan(), "fast") as installed:
        loop.set_timesteps()
        copied = copy.deepcopy(loop.pipeline.scheduler)
        for is_before in (True, False, True):
            steps = [lambda: copied.step(loop.latents, copied.timesteps[0], loop.latents), loop.step]
            loop.call(None), loop.call(None)
            for step in steps if is_before else reversed(steps):
                step()
        assert installed.computed_steps == (0, 2)


def test_a_copied_scheduler_can_serve_another_pipeline():
    pipeline, other = tiny_wan_euler(), tiny_wan_euler()
    with apply(pipeline, make_plan(), "fast"):
        other.scheduler = copy.deepcopy(copy.deepcopy(pipeline.scheduler))
        expected = generate(pipeline)
        with apply(other, make_plan(), "fast") as installed:
            assert torch.equal(generate(other), expected)
            assert installed.computed_steps == (0, 2, 5)
