"""The variable in which forecasts are straight lines."""

from __future__ import annotations

from typing import Any

_LEAST_SIGNAL = 2.0**-24  # the share of the signal's variance


def sampler_times(scheduler: Any) -> tuple[float, ...]:
    """Return the time of every step, strictly monotonic.

    Parameters
    ----------
    scheduler : diffusers scheduler after ``set_timesteps``

    Returns
    -------
    tuple of float
        Noise over signal, ``sigma / alpha``, which measured better than its logarithm, its angle and the step's
        number; for flow matching ``sigma``. Samplers that integrate over them hold them as ``sigmas``, also where
        these lie between timesteps; DDIM and its kin have ``alphas_cumprod`` only. Where a schedule begins without any
        signal (CogVideoX), it counts as a 4096th of the noise, as diffusers' multistep samplers have it.
    """
    steps = len(scheduler.timesteps)
    sigmas: Any = getattr(scheduler, "sigmas", ())
    if len(sigmas) == steps + 1:  # the last is where the last step leads
        return tuple(sigmas[:steps].double().tolist())
    if hasattr(scheduler, "alphas_cumprod"):
        alpha_bar = scheduler.alphas_cumprod.double().cpu()[scheduler.timesteps.cpu().long()].clamp(min=_LEAST_SIGNAL)
        return tuple(((1 - alpha_bar) / alpha_bar).sqrt().tolist())
    return tuple(scheduler.timesteps.double().tolist())
