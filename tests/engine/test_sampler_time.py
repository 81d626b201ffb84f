import math
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

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


def test_timesteps_where_there_is_nothing_else():
    assert sampler_times(SimpleNamespace(timesteps=torch.tensor([9.0, 4.0, 1.0]))) == (9.0, 4.0, 1.0)
