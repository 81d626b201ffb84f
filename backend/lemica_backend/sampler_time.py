"""The variable in which forecasts are straight lines."""

from __future__ import annotations

from typing import Any


def sampler_times(scheduler: Any) -> tuple[float, ...]:
    """Return the time of every step, strictly monotonic.

    Parameters
    ----------
    scheduler : diffusers scheduler after ``set_timesteps``

    Returns
    -------
    tuple of float
        Noise over signal, ``sigma / alpha``, for samplers with ``alphas_cumprod`` (DDIM and its kin), which measured
        better than its logarithm, its angle and the step's number; ``sigmas`` for flow matching and other samplers
        that have them.
    """
    steps = len(scheduler.timesteps)
    if hasattr(scheduler, "alphas_cumprod"):
        alpha_bar = scheduler.alphas_cumprod.double()[scheduler.timesteps.cpu().long()]
        return tuple(((1 - alpha_bar) / alpha_bar).sqrt().tolist())
    if hasattr(scheduler, "sigmas"):
        return tuple(scheduler.sigmas[:steps].double().tolist())
    return tuple(scheduler.timesteps.double().tolist())
