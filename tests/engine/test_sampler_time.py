import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from lemica_backend.sampler_time import sampler_times


def with_steps(scheduler, steps=10):
    scheduler.set_timesteps(steps)
    return scheduler


def test_noise_over_signal_where_there_are_alphas():
    scheduler = with_steps(DDIMScheduler())
    times = sampler_times(scheduler)
    alpha_bar = scheduler.alphas_cumprod[scheduler.timesteps[3]].item()
    assert times[3] == pytest.approx(math.sqrt((1 - alpha_bar) / alpha_bar))
    assert list(times) == sorted(times, reverse=True)
    assert len(times) == 10


def test_sigma_for_flow_matching():
    scheduler = with_steps(FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert sampler_times(scheduler) == pytest.approx(scheduler.sigmas[:10].tolist())


def test_sigma_for_a_multistep_sampler_of_flow_matching():
    """It holds an alphas_cumprod, too, which its timesteps mean nothing to: of 100 of them, two are alike."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 12.0}
    scheduler = with_steps(UniPCMultistepScheduler(**flow), 100)
    times = sampler_times(scheduler)
    assert len(set(scheduler.timesteps.tolist())) < 100
    assert times == pytest.approx(scheduler.sigmas[:100].tolist())
    assert list(times) == sorted(set(times), reverse=True)


@pytest.mark.parametrize("kind", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
def test_a_schedule_that_begins_without_signal_has_finite_times(kind):
    scheduler = with_steps(kind(rescale_betas_zero_snr=True, timestep_spacing="trailing"))
    times = sampler_times(scheduler)
    alpha_bar = scheduler.alphas_cumprod[scheduler.timesteps[4]].item()
    assert scheduler.alphas_cumprod[scheduler.timesteps[0]] == 0
    assert times[0] == pytest.approx(4096)
    assert times[4] == pytest.approx(math.sqrt((1 - alpha_bar) / alpha_bar))
    assert list(times) == sorted(set(times), reverse=True)


def test_timesteps_where_there_is_nothing_else():
    assert sampler_times(SimpleNamespace(timesteps=torch.tensor([9.0, 4.0, 1.0]))) == (9.0, 4.0, 1.0)


def test_sigmas_where_they_lie_between_timesteps():
    """Lu's lambdas are rounded to timesteps for the model only, so several of them may share one."""
    scheduler = with_steps(DPMSolverMultistepScheduler(use_lu_lambdas=True), 60)
    times = sampler_times(scheduler)
    assert len(set(scheduler.timesteps.tolist())) < 60
    assert all(one > after for one, after in pairwise(times))


def test_samplers_of_one_noising_agree_on_its_time():
    schedulers = (kind(timestep_spacing="trailing") for kind in (DDIMScheduler, UniPCMultistepScheduler))
    one, other = (sampler_times(with_steps(scheduler)) for scheduler in schedulers)
    assert one == pytest.approx(other)
