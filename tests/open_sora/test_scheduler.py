"""Rectified flow: where steps are, and where they lead."""

import math

import pytest
import torch

from lemica_backend.models.open_sora.scheduler import RectifiedFlowScheduler, timestep_shift
from lemica_backend.sampler_time import sampler_times


def with_steps(steps, shift=1.0):
    scheduler = RectifiedFlowScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    return scheduler


def test_without_a_shift_steps_are_equal_and_end_at_the_clip():
    scheduler = with_steps(4)
    assert scheduler.timesteps.tolist() == [1000, 750, 500, 250]
    assert scheduler.sigmas.tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_a_shift_keeps_the_ends_and_stays_longer_at_high_noise():
    scheduler = with_steps(4, shift=3.0)
    assert scheduler.timesteps.tolist() == pytest.approx([1000, 3 * 750 / 2.5, 750, 3 * 250 / 1.5])
    assert scheduler.sigmas[-1] == 0


def test_the_shift_grows_with_the_root_of_pixels_and_of_whole_chunks():
    assert timestep_shift(num_frames=1, height=256, width=1024) == 1
    assert timestep_shift(num_frames=1, height=1024, width=1024) == 2
    assert timestep_shift(num_frames=51, height=512, width=512) == pytest.approx(math.sqrt(15))
    assert timestep_shift(num_frames=67, height=512, width=512) == pytest.approx(math.sqrt(15))
    with pytest.raises(ValueError, match="at least 17"):
        timestep_shift(num_frames=16, height=512, width=512)


def test_a_constant_velocity_leads_from_the_noise_to_the_clip_in_any_number_of_steps():
    noise, clip = torch.randn(2, 1, 4, 3, 2, 2)
    for steps in (1, 5):
        scheduler, latents = with_steps(steps, shift=2.0), noise
        for timestep in scheduler.timesteps:
            latents = scheduler.step(noise - clip, timestep, latents, return_dict=False)[0]
        assert (latents - clip).abs().max() <= 1e-6


def test_steps_depend_on_the_timestep_alone():
    scheduler, latents, output = with_steps(5), torch.randn(2, 3), torch.randn(2, 3)
    last = scheduler.step(output, scheduler.timesteps[4], latents)[0]
    scheduler.step(output, scheduler.timesteps[0], latents)
    assert torch.equal(scheduler.step(output, scheduler.timesteps[4], latents)[0], last)
    assert torch.allclose(last, latents - 0.2 * output)


def test_its_time_is_sigma():
    scheduler = with_steps(7, shift=4.0)
    assert sampler_times(scheduler) == pytest.approx(scheduler.sigmas[:7].tolist())
    assert list(sampler_times(scheduler)) == sorted(sampler_times(scheduler), reverse=True)
