"""Between what the model puts out and the noise that this says is in the latents; both ways, for any sampler."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["to_noise", "to_output"]


class _Mixture(NamedTuple):
    """The latents are ``signal * clean + noise * eps``, the output ``of_clean * clean + of_noise * eps``."""

    signal: float
    noise: float
    of_clean: float
    of_noise: float

    @property
    def determinant(self) -> float:
        return self.signal * self.of_noise - self.noise * self.of_clean


def to_noise(scheduler: Any, time: float, latents: Tensor, output: Tensor) -> Tensor:
    """Return the noise in the latents, by the model's output; float32, because early on little errors of it grow.

    Parameters
    ----------
    scheduler : diffusers scheduler
    time : float
        The sampler's time of the step, see `lemica_backend.sampler_time`.
    latents, output : Tensor
        What enters the step, and the guided output; of one shape.
    """
    mix = _mixture(scheduler, time)
    return (mix.signal * output.float() - mix.of_clean * latents.float()) / mix.determinant


def to_output(scheduler: Any, time: float, latents: Tensor, noise: Tensor) -> Tensor:
    """Return the output that says that `noise` is in the latents: `to_noise` the other way round."""
    mix = _mixture(scheduler, time)
    return ((mix.determinant * noise + mix.of_clean * latents.float()) / mix.signal).to(latents.dtype)


def _mixture(scheduler: Any, time: float) -> _Mixture:
    kind = scheduler.config.get("prediction_type", "flow_prediction")
    if scheduler.config.get("invert_sigmas"):  # flow matching from the clip's side: Mochi's
        return _Mixture(time, 1 - time, 1.0, -1.0)
    if kind == "flow_prediction":  # Lipman et al. 2023: time is sigma, the output the velocity
        return _Mixture(1 - time, time, -1.0, 1.0)
    alpha = (1 + time**2) ** -0.5
    of_clean, of_noise = {
        "epsilon": (0.0, 1.0),
        "sample": (1.0, 0.0),
        "v_prediction": (-time * alpha, alpha),  # Salimans and Ho, 2022, appendix D
    }[kind]
    scale = 1.0 if _grows(scheduler) else alpha
    return _Mixture(scale, scale * time, of_clean, of_noise)


def _grows(scheduler: Any) -> bool:
    """Whether the latents keep the signal's scale while the noise grows: those samplers scale the model's input."""
    return type(scheduler).__name__ == "EulerDiscreteScheduler"
