"""What only LTX-Video and Mochi have: an autoencoder that takes a timestep, and a schedule that runs upwards."""

import numpy as np
import pytest
import torch

from lemica_backend.errors import InvalidRequestError, ModelLoadError
from lemica_backend.noise import to_noise, to_output
from lemica_backend.sampler_time import sampler_times
from tests.tiny import ltx
from tests.tiny.families import FAMILIES
from tests.tiny.family import Tiny


def test_the_timestep_of_the_autoencoder_matters(load, monkeypatch):
    loaded = load(FAMILIES["ltx-0.9.1"])
    latents = loaded.model.initial_noise(0)
    frames = loaded.model.decode(latents)
    monkeypatch.setattr(loaded.model, "_options", loaded.model.options_class(decode_timestep=0.5))
    assert np.abs(loaded.model.decode(latents).astype(int) - frames).max() > 1


def test_the_noise_of_the_autoencoder_is_the_requests_own(load):
    loaded = load(FAMILIES["ltx-0.9.5"])
    latents = loaded.model.initial_noise(0)
    one, other, again = (loaded.model.decode(latents, seed).astype(int) for seed in (7, 8, 7))
    assert np.array_equal(one, again)
    assert np.abs(one - other).max() > 1


@pytest.mark.parametrize("option", ["decode_timestep", "decode_noise_scale"])
def test_a_timestep_for_an_autoencoder_that_takes_none_is_refused(load, option):
    with pytest.raises(ModelLoadError, match=f"{option}: the autoencoder takes no timestep"):
        load(Tiny("ltx", "wrong", ltx.tiny_ltx, ltx.SIZE, {option: 0.05}))


def test_the_shift_follows_the_size(load):
    """Twice the tokens, and the schedule is as the pipeline makes it there."""
    tiny = FAMILIES["ltx-0.9"]
    larger = load(Tiny("ltx", "larger", tiny.build, {**tiny.size, "width": 128}, tiny.options, tiny.arguments))
    larger.theirs("a cat")
    ours = larger.model.new_scheduler(6, 0).sigmas
    assert ours.tolist() == larger.pipeline.scheduler.sigmas.tolist()
    assert ours.tolist() != load(tiny).model.new_scheduler(6, 0).sigmas.tolist()


def test_latents_are_tokens_as_the_pipelines_are(load):
    assert load(FAMILIES["ltx-0.9"]).model.info.latents_shape == (2 * 4 * 8, 8)


def test_the_schedule_of_mochi_runs_upwards(load):
    loaded = load(FAMILIES["mochi-1"])
    times = sampler_times(loaded.model.new_scheduler(6, 0))
    assert list(times) == sorted(set(times))
    assert times[0] == 0


def test_the_noise_in_the_latents_of_mochi_is_found(load):
    """Which are mixed the other way round: the sigma of pure noise is 0."""
    scheduler = load(FAMILIES["mochi-1"]).model.new_scheduler(6)
    time = sampler_times(scheduler)[3]
    clean, noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    latents, output = time * clean + (1 - time) * noise, clean - noise
    assert (to_noise(scheduler, time, latents, output) - noise).abs().max() <= 1e-5
    assert (to_output(scheduler, time, latents, noise) - output).abs().max() <= 1e-5


def test_the_schedule_of_mochi_has_two_steps_at_least(load):
    loaded = load(FAMILIES["mochi-1"])
    with pytest.raises(InvalidRequestError, match="at least 2"):
        loaded.job("a cat", steps=1)
