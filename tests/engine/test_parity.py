"""The engine against LattePipeline itself, and a skipped step against one made by hand."""

import threading

import numpy as np
import pytest
import torch

from lemica_backend.denoise import denoise
from lemica_backend.job import start_job
from lemica_backend.planned import plan_request
from lemica_backend.types import GenerationRequest

STEPS = 6
PROMPTS = ("a red circle", "a very much longer caption of a blue square that moves to the left", "", "x")


def pipeline_latents(pipeline, prompt, *, seed=7, guidance_scale=4.0, steps=STEPS, negative_prompt=""):
    return (
        pipeline(
            prompt,
            negative_prompt=negative_prompt,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
            clean_caption=False,
            height=None,  # the model's own size, not 512
            width=None,
        )
        .frames[0]
        .numpy()
    )


def assert_close(ours, theirs):
    """Within 1e-5, or of the largest latent where that is above 1: random weights and guidance blow latents up."""
    assert np.abs(ours - theirs).max() <= 1e-5 * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("prompt", PROMPTS)
def test_full_budget_equals_the_pipeline(engine, pipeline, prompt):
    ours = engine.generate(GenerationRequest(prompt, seed=7, budget="full")).latents
    assert_close(ours, pipeline_latents(pipeline, prompt))


@pytest.mark.parametrize("options", [{"guidance_scale": 1.0}, {"guidance_scale": 7.5}, {"negative_prompt": "fog"}])
def test_full_budget_equals_the_pipeline_with_other_options(engine, pipeline, options):
    ours = engine.generate(GenerationRequest("a cat", seed=3, budget="full", **options)).latents
    assert_close(ours, pipeline_latents(pipeline, "a cat", seed=3, **options))


def test_other_step_counts_equal_the_pipeline(engine, pipeline):
    ours = engine.generate(GenerationRequest("a cat", seed=3, num_inference_steps=4, budget="full")).latents
    assert_close(ours, pipeline_latents(pipeline, "a cat", seed=3, steps=4))


def test_decoded_frames_equal_the_pipelines(engine, pipeline):
    ours = engine.generate(GenerationRequest("a cat", seed=3, budget="full")).frames.astype(int)
    theirs = pipeline(
        "a cat",
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
        clean_caption=False,
        height=None,  # the model's own size, not 512
        width=None,
    ).frames[0]
    assert np.abs(ours - (theirs * 255).round().astype(int)).max() <= 1


def generate_together(engine, requests):
    outcomes, done = {}, threading.Event()

    def answer(index, outcome):
        outcomes[index] = outcome
        if len(outcomes) == len(requests):
            done.set()

    for index, request in enumerate(requests):
        engine.submit(request, on_done=lambda outcome, index=index: answer(index, outcome))
    assert done.wait(120)
    return [outcomes[index] for index in range(len(requests))]


def test_prompts_of_different_length_in_one_batch_equal_the_pipeline_alone(engine, pipeline):
    results = generate_together(engine, [GenerationRequest(prompt, seed=7, budget="full") for prompt in PROMPTS])
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert_close(result.latents, pipeline_latents(pipeline, prompt))


def test_a_request_does_not_depend_on_its_neighbours(engine):
    requests = [
        GenerationRequest("a cat", seed=1, budget="fast"),
        GenerationRequest("a much longer prompt of a dog", seed=2, budget="full"),
        GenerationRequest("a cow", seed=3, num_inference_steps=4, guidance_scale=1.0, budget="full"),
        GenerationRequest("", seed=4, budget="slow"),
    ]
    alone = [engine.generate(request).latents for request in requests]
    together = [result.latents for result in generate_together(engine, requests)]
    for one, other in zip(alone, together, strict=True):
        assert_close(one, other)


def test_a_skipped_step_equals_stem_residual_and_head_by_hand(model, config, plan, pipeline):
    request = GenerationRequest("a cat", seed=1, budget="fast")  # computes 0, 2, 5
    job = start_job(model, plan_request(request, info=model.info, config=config, plan=plan))
    net, seen = pipeline.transformer, {}
    before = net.pos_embed.register_forward_hook(lambda _module, _args, output: seen.update(start=output))
    after = net.norm_out.register_forward_pre_hook(lambda _module, args: seen.update(end=args[0]))
    first = job.latents
    texts = torch.stack([job.texts["uncond"], job.texts["cond"]])
    unprojected = pipeline.encode_prompt("a cat", True, clean_caption=False)
    with torch.no_grad():
        net(torch.stack([first] * 2), job.timestep[None].expand(2), torch.cat(unprojected[::-1]))
    before.remove(), after.remove()
    assert texts.shape[1] == unprojected[0].shape[1]
    residual = seen["end"] - seen["start"]

    denoise(model, [job])
    second, timestep = job.latents, job.timestep
    by_hand = net.pos_embed.register_forward_hook(lambda _module, _args, output: seen.update(start=output))
    swap = net.norm_out.register_forward_pre_hook(lambda _module, args: (seen["start"] + residual,))
    with torch.no_grad():
        output = net(torch.stack([second] * 2), timestep[None].expand(2), torch.cat(unprojected[::-1])).sample
    by_hand.remove(), swap.remove()
    uncond, cond = output.chunk(2, dim=1)[0]
    expected = model.new_scheduler(STEPS, 1).step(uncond + 4.0 * (cond - uncond), timestep, second).prev_sample
    denoise(model, [job])
    assert (job.latents - expected).abs().max() <= 1e-5
    assert (job.latents - second).abs().max() > 1e-2
