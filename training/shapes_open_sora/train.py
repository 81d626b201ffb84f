"""Train the small STDiT3 by rectified flow (arXiv 2209.03003)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from shapes.batches import Batch
from shapes.fit import Schedule, fit
from shapes.pool import Pool
from shapes_open_sora.model import TextToVideo

SHIFT = 3.0  # of the timesteps, in training and sampling: what moves where is decided at high noise
BLIND = 0.986  # from this share of noise on, as much noise a signal as at Latte's blind timesteps
IMAGES_BELOW = 0.9  # single frames teach to draw; where things are at higher noise, only whole clips tell


def train_open_sora(folder: Path, pool: Pool, *, schedule: Schedule, device: str, start: TextToVideo) -> TextToVideo:
    """Train from `start`, or carry on from `folder`'s checkpoint, and return the averaged model."""
    model = start.to(device)
    denoiser = model.denoiser
    return fit(
        folder / "open_sora.pt",
        model,
        network=denoiser,
        blocks=(*denoiser.spatial_blocks, *denoiser.temporal_blocks),
        loss=partial(flow_loss, model),
        pool=pool,
        schedule=schedule,
    )


def flow_loss(model: nn.Module, batch: Batch, *, layout: bool) -> Tensor:
    """Return the mean squared error of the velocity, clip less noise.

    Where a model is blind, the best it can do is the mean of all clips with that caption. To have that as the target
    in place of one clip changes no expected gradient and takes most of its noise away.
    """
    share = noise_shares(*batch.latents.shape[:3:2], layout=layout).to(batch.latents.device)
    noise = torch.randn_like(batch.latents)
    level = share[:, None, None, None, None]
    noisy = torch.lerp(batch.latents, noise, level)
    target = torch.where(level >= BLIND, batch.means, batch.latents) - noise
    with torch.autocast(noise.device.type, torch.bfloat16):
        output = model(noisy, 1000 * share, batch)
    return nn.functional.mse_loss(output.float(), target)


def noise_shares(size: int, frames: int, *, layout: bool) -> Tensor:
    """Draw the shares of noise, shape (size,): evenly over the sampler's steps, single frames not at high noise."""
    strata = (torch.arange(size) + torch.rand(size)) / size
    if layout:
        return BLIND + strata * (1 - BLIND)
    share = SHIFT * strata / (1 + (SHIFT - 1) * strata)
    return share if frames > 1 else share * IMAGES_BELOW
