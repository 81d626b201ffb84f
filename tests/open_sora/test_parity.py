"""The engine against a plain sampler, rows among others against rows alone, and skipped steps."""

import threading

import numpy as np
import pytest
import torch

from lemica_backend.denoise import denoise
from lemica_backend.errors import InvalidRequestError
from lemica_backend.job import start_job
from lemica_backend.planned import plan_request
from lemica_backend.types import GenerationRequest
from tests.open_sora import reference
from tests.tiny_open_sora import FRAMES, HEIGHT, LATENT_COLUMNS, LATENT_FRAMES, LATENT_ROWS, NUM_LAYERS

STEPS = 6
PROMPTS = ("a red circle", "a very much longer caption of a blue square that moves to the left", "", "x")


def assert_close(ours, theirs):
    """Within 1e-5 of the largest latent: random weights and guidance blow latents up."""
    assert np.abs(ours - theirs).max() <= 1e-5 * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("prompt", PROMPTS)
def test_full_budget_equals_the_plain_sampler(engine, pipeline, prompt):
    ours = engine.generate(GenerationRequest(prompt, seed=7, budget="full")).latents
    assert_close(ours, reference.sample(pipeline, prompt))


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"guidance_scale": 1.0}, {"guidance_scale": 1.0}),
        ({"guidance_scale": 4.0}, {"guidance_scale": 4.0}),
        ({"num_inference_steps": 4}, {"steps": 4}),
    ],
)
def test_full_budget_equals_the_plain_sampler_with_other_options(engine, pipeline, options, changed):
    ours = engine.generate(GenerationRequest("a cat", seed=3, budget="full", **options)).latents
    assert_close(ours, reference.sample(pipeline, "a cat", seed=3, **changed))


def test_decoded_frames_equal_the_plain_decoder(engine, pipeline):
    result = engine.generate(GenerationRequest("a cat", seed=3, budget="full"))
    theirs = reference.decode(pipeline, result.latents)
    assert result.frames.shape == theirs.shape == (FRAMES, 4 * LATENT_ROWS, 4 * LATENT_COLUMNS, 3)
    assert np.abs(result.frames - theirs * 255).max() <= 0.51
    assert result.frames.std() > 10


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


def test_prompts_of_different_length_in_one_batch_equal_the_plain_sampler_alone(engine, pipeline):
    results = generate_together(engine, [GenerationRequest(prompt, seed=7, budget="full") for prompt in PROMPTS])
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert_close(result.latents, reference.sample(pipeline, prompt))


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


@pytest.mark.parametrize(("budget", "computed"), [("full", 6), ("slow", 4), ("fast", 3)])
def test_a_budget_of_b_runs_every_block_b_times(engine, model, budget, computed):
    ran = []
    blocks = (*model._net.spatial_blocks, *model._net.temporal_blocks)
    hooks = [block.register_forward_hook(lambda _block, args, _out: ran.append(len(args[0]))) for block in blocks]
    engine.generate(GenerationRequest("a cat", seed=1, budget=budget))
    for hook in hooks:
        hook.remove()
    assert ran == [2] * computed * 2 * NUM_LAYERS  # two branches, spatial and temporal blocks


def test_a_skipped_step_equals_stem_residual_and_head_by_hand(model, config, plan, pipeline):
    request = GenerationRequest("a cat", seed=1, budget="fast")  # computes 0, 2, 5
    job = start_job(model, plan_request(request, info=model.info, config=config, plan=plan))
    states, mask = reference.encode(pipeline, "a cat aesthetic score: 6.5.")
    texts = torch.cat([pipeline.transformer.y_embedder.y_embedding[None], states])
    net, seen = pipeline.transformer, {}

    def run(latents, timestep):
        options = {"fps": torch.full((2,), 24.0), "height": HEIGHT, "width": 58.0, "text_mask": mask.repeat(2, 1)}
        with torch.no_grad():
            return net(torch.stack([latents] * 2), timestep.expand(2), texts, **options)[:, :4]

    start = net.spatial_blocks[0].register_forward_pre_hook(lambda _block, args: seen.update(start=args[0]))
    end = net.final_layer.register_forward_pre_hook(lambda _layer, args: seen.update(end=args[0]))
    run(job.latents, job.timestep)
    end.remove()
    residual = seen["end"] - seen["start"]

    denoise(model, [job])
    second, now, then = job.latents, job.timestep, job.scheduler.timesteps[2]
    swap = net.final_layer.register_forward_pre_hook(lambda _layer, args: (seen["start"] + residual, *args[1:]))
    uncond, cond = run(second, now)
    start.remove(), swap.remove()
    expected = second + (uncond + 7.0 * (cond - uncond)) * (now - then) / 1000
    denoise(model, [job])
    assert (job.latents - expected).abs().max() <= 1e-5 * second.abs().max()
    assert (job.latents - second).abs().max() > 1e-2


def test_the_model_says_what_comes_out(model):
    info = model.info
    assert info.latents_shape == (4, LATENT_FRAMES, LATENT_ROWS, LATENT_COLUMNS)
    assert (info.num_frames, info.height, info.width) == (21, 36, 56)
    assert info.scheduler == "RectifiedFlowScheduler"
    assert info.scheduler_config["fps"] == 24


def test_a_prompt_beyond_the_text_encoder_is_refused_not_cut(engine):
    with pytest.raises(InvalidRequestError, match="at most 120"):
        engine.generate(GenerationRequest("word " * 100))


def test_a_negative_prompt_is_refused(engine):
    with pytest.raises(InvalidRequestError, match="negative_prompt"):
        engine.generate(GenerationRequest("a cat", negative_prompt="fog"))
