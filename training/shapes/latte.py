"""Train the Latte transformer on encoded clips."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from shapes.batches import Batch
from shapes.fit import Schedule, fit
from shapes.model import TextToVideo, make_scheduler
from shapes.pool import Pool

BLIND = 920  # from this timestep on (alpha_bar < 2e-4), noisy latents show next to nothing of the clip
IMAGES_BELOW = 750  # single frames teach to draw; where things are at higher noise, only whole clips tell


def train_latte(folder: Path, pool: Pool, *, schedule: Schedule, device: str, start: TextToVideo) -> TextToVideo:
    """Train from `start`, or carry on from `folder`'s checkpoint, and return the averaged model."""
    model = start.to(device)
    denoiser = model.denoiser
    return fit(
        folder / "latte.pt",
        model,
        network=denoiser,
        blocks=(*denoiser.transformer_blocks, *denoiser.temporal_transformer_blocks),
        loss=partial(_loss, model, make_scheduler()),
        pool=pool,
        schedule=schedule,
    )


def _loss(model: TextToVideo, scheduler: DDIMScheduler, batch: Batch, *, layout: bool) -> Tensor:
    """Return the mean squared error of the velocity.

    Where a model is blind, the best it can do is the mean of all clips with that caption. To have that as the target
    in place of one clip changes no expected gradient and takes most of its noise away.
    """
    timestep = _timesteps(*batch.latents.shape[:3:2], layout=layout).to(batch.latents.device)
    noise = torch.randn_like(batch.latents)
    noisy = scheduler.add_noise(batch.latents, noise, timestep)
    target = scheduler.get_velocity(_aim(batch, timestep), noise, timestep)
    with torch.autocast(noise.device.type, torch.bfloat16):
        output = model(noisy, timestep, batch)
    return nn.functional.mse_loss(output.float(), target)


def _timesteps(size: int, frames: int, *, layout: bool) -> Tensor:
    low, high = (BLIND, 1000) if layout else (0, 1000 if frames > 1 else IMAGES_BELOW)
    strata = (torch.arange(size) + torch.rand(size)) / size
    return (low + strata * (high - low)).long().clamp(max=high - 1)


def _aim(batch: Batch, timestep: Tensor) -> Tensor:
    blind = (timestep >= BLIND)[:, None, None, None, None]
    return torch.where(blind, batch.means, batch.latents)
