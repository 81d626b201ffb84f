"""Rectified flow (Liu et al., arXiv 2209.03003) with Open-Sora's timesteps, which depend on the size of the video."""

from __future__ import annotations

import math

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from lemica_backend.models.open_sora.sizes import CHUNK_FRAMES, CHUNK_LATENTS

_BASE_SIDE = 512


class RectifiedFlowScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # diffusers has no types
    """Euler steps from noise to clip, in the manner of diffusers' schedulers.

    The noise levels are ``1, 1 - 1/N, ..., 1/N`` before the shift, and the last step ends at 0; diffusers' own spacing
    for flow matching differs. As there, the model's output is the velocity from clip to noise: the opposite of what
    STDiT3 predicts.

    Parameters
    ----------
    num_train_timesteps : int
        The timestep of pure noise.
    shift : float
        See `timestep_shift`.

    Attributes
    ----------
    timesteps : Tensor of float32, shape (N,)
    sigmas : Tensor of float32, shape (N + 1,)
        Share of noise before each step and after the last.
    """

    timesteps: Tensor
    sigmas: Tensor

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, num_train_timesteps: int = 1000, shift: float = 1.0) -> None:
        self.init_noise_sigma = 1.0
        self.set_timesteps(num_train_timesteps)

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Prepare for that many steps."""
        levels = 1 - torch.arange(num_inference_steps + 1, dtype=torch.float64) / num_inference_steps
        sigmas = self.config.shift * levels / (1 + (self.config.shift - 1) * levels)
        self.timesteps = (self.config.num_train_timesteps * sigmas[:-1]).float().to(device)
        self.sigmas = sigmas.float().to(device)

    def step(
        self, model_output: Tensor, timestep: Tensor | float, sample: Tensor, *, return_dict: bool = False
    ) -> tuple[Tensor]:
        """Return the latents of the next step; it is the timestep alone that tells which one."""
        assert not return_dict, "only tuples"
        now = int((self.timesteps == timestep).nonzero())
        return (sample + (self.sigmas[now + 1] - self.sigmas[now]) * model_output,)


def timestep_shift(*, num_frames: int, height: int, width: int) -> float:
    """Return by how much larger videos stay longer at high noise: ``shift * t / (1 + (shift - 1) * t)`` replaces t.

    It is the root of the number of pixels and of latent frames, in units of one frame of 512 x 512, where only whole
    chunks of 17 frames count (arXiv 2412.20404; the form is that of arXiv 2403.03206, equation 23).

    Raises
    ------
    ValueError
        For 2 to 16 frames, which would get no noise at all.

    Examples
    --------
    >>> timestep_shift(num_frames=1, height=512, width=512)
    1.0
    >>> round(timestep_shift(num_frames=51, height=480, width=854), 3)
    4.843
    """
    latent_frames = 1 if num_frames == 1 else num_frames // CHUNK_FRAMES * CHUNK_LATENTS
    if latent_frames == 0:
        raise ValueError(f"num_frames is {num_frames}; Open-Sora's timesteps need 1, or at least {CHUNK_FRAMES}")
    return math.sqrt(height * width) / _BASE_SIDE * math.sqrt(latent_frames)
