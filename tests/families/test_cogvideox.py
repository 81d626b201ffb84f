"""What only CogVideoX has: noise in the sampler, guidance that grows, frames that fill a patch."""

import copy

import pytest
import torch

from lemica_backend.errors import ModelLoadError
from lemica_backend.models.cogvideox import DpmSteps
from tests.tiny import cogvideox
from tests.tiny.families import FAMILIES
from tests.tiny.family import STEPS, Tiny


@pytest.fixture(scope="module")
def dpm(load):
    return load(FAMILIES["cogvideox-5b"])


def take(scheduler, latents, steps):
    for step in steps:
        output = torch.full_like(latents, 0.1 * step)
        (latents,) = scheduler.step(output, scheduler.timesteps[step], latents, return_dict=False)
    return latents


def test_a_copy_of_the_sampler_goes_on_with_the_same_noise(dpm):
    scheduler, latents = dpm.model.new_scheduler(STEPS, 7), dpm.model.initial_noise(7)
    assert isinstance(scheduler, DpmSteps)
    latents = take(scheduler, latents, (0, 1))
    twin = copy.deepcopy(scheduler)
    assert torch.equal(take(scheduler, latents, (2, 3)), take(twin, latents, (2, 3)))


def test_two_requests_draw_from_their_own_noise(dpm):
    latents = dpm.model.initial_noise(7)
    one, other, again = (take(dpm.model.new_scheduler(STEPS, seed), latents, (0, 1)) for seed in (7, 8, 7))
    assert torch.equal(one, again)
    assert (one - other).abs().max() > 0.1


def test_guidance_grows_along_the_steps(dpm):
    outputs = torch.tensor([[0.0], [1.0]])
    scales = [dpm.model.guide(outputs, 6.0, torch.tensor(t), 1000).item() for t in (999, 500, 1)]
    assert scales == sorted(scales)
    assert scales[0] == pytest.approx(1.0, abs=0.01)
    assert scales[-1] == pytest.approx(7.0, abs=0.01)


def test_dynamic_guidance_is_part_of_what_a_plan_is_for(dpm):
    assert dpm.model.info.scheduler_config["use_dynamic_cfg"] is True


def test_frames_are_added_in_front_and_dropped(load):
    loaded = load(FAMILIES["cogvideox-1.5"])
    latents = loaded.model.initial_noise(0)
    assert loaded.model.info.latents_shape == tuple(latents.shape) == (4, 4, 4, 6)
    assert loaded.model.decode(latents).shape == (9, 32, 48, 3)
    changed = torch.cat([latents[:1] + 9, latents[1:]])
    assert (loaded.model.decode(changed) == loaded.model.decode(latents)).all()


def test_a_transformer_that_continues_an_image_is_refused(load):
    with pytest.raises(ModelLoadError, match="continues an image"):
        load(Tiny("cogvideox", "image", lambda: cogvideox.tiny_2b(ofs_embed_dim=8), cogvideox.SIZE))
