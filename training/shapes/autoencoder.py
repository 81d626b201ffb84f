"""Train the image autoencoder (diffusers AutoencoderKL, 4 latent channels, a quarter of the side)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from shapes.checkpoint import load_checkpoint, save_checkpoint
from shapes.render import draw
from shapes.scene import all_scenes

CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (16, 32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 1,  # finer groups wash the colour out of flat frames
    "sample_size": 80,
    "scaling_factor": 1.0,
}
KL_WEIGHT = 1e-5
FRAMES_PER_CLIP = 4  # neighbouring frames teach little more
CROP = 40  # pixels; most iterations see a quarter of a frame, where the shape is
CROPPED = 0.7  # share of the iterations that do


def to_pixels(frames: NDArray[np.uint8]) -> Tensor:
    """Turn uint8 frames (..., height, width, 3) into floats (..., 3, height, width) in [-1, 1]."""
    return torch.from_numpy(frames).movedim(-1, -3).float() / 127.5 - 1


def train_autoencoder(folder: Path, *, iterations: int, batch: int, device: str, seed: int = 0) -> AutoencoderKL:
    """Train, or carry on from `folder`'s checkpoint, and return the standardised autoencoder."""
    torch.manual_seed(seed)
    model = _new_model().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=iterations, pct_start=0.05)
    path = folder / "autoencoder.pt"
    start = load_checkpoint(path, model=model, optimizer=optimizer, schedule=schedule)
    bar = tqdm(range(start, iterations), initial=start, total=iterations, desc="autoencoder", mininterval=5)
    for iteration in bar:
        cropped = iteration < CROPPED * iterations
        pixels = _crops(4 * batch, seed + iteration) if cropped else _batch(batch, seed + iteration)
        loss = _loss(model, pixels.to(device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if iteration % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.4f}")
        if iteration % 200 == 199 or iteration == iterations - 1:
            save_checkpoint(path, iteration + 1, model=model, optimizer=optimizer, schedule=schedule)
    return standardise(model.eval(), _batch(256, seed=10**6).to(device))


def _new_model() -> AutoencoderKL:
    model = AutoencoderKL(**CONFIG)
    torch.nn.init.constant_(model.quant_conv.bias[4:], -4.0)  # log-variance: begin with little noise
    return model


def _loss(model: AutoencoderKL, pixels: Tensor) -> Tensor:
    with torch.autocast(pixels.device.type, torch.bfloat16):
        posterior = model.encode(pixels).latent_dist
        output = model.decode(posterior.sample()).sample
    error = (output.float() - pixels).abs().mean() + functional.mse_loss(output.float(), pixels)
    kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
    loss: Tensor = error + KL_WEIGHT * kl
    return loss


def _batch(size: int, seed: int) -> Tensor:
    """Return `size` random frames, shape (size, 3, 80, 80), in [-1, 1]."""
    rng = np.random.default_rng(seed)
    scenes = all_scenes()
    clips = [draw(scenes[rng.integers(len(scenes))], rng) for _ in range(-(-size // FRAMES_PER_CLIP))]
    picks = [clip[rng.choice(len(clip), FRAMES_PER_CLIP, replace=False)] for clip in clips]
    return to_pixels(np.concatenate(picks)[:size]).contiguous(memory_format=torch.channels_last)


def _crops(size: int, seed: int) -> Tensor:
    """Return `size` crops of 40 x 40 pixels, each with a part of its frame's shape."""
    frames, rng = _batch(size, seed), np.random.default_rng(seed)
    inked = (frames - frames[:, :, :1, :1]).abs().sum(1) > 0.2
    crops = []
    for frame, mask in zip(frames, inked, strict=True):
        spots = mask.nonzero()
        middle = spots[rng.integers(len(spots))] + torch.from_numpy(rng.integers(-12, 13, 2)) - CROP // 2
        top, left = (4 * (middle // 4)).clamp(0, frames.shape[-1] - CROP).tolist()
        crops.append(frame[:, top : top + CROP, left : left + CROP])
    return torch.stack(crops).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def standardise(model: AutoencoderKL, pixels: Tensor) -> AutoencoderKL:
    """Fold each latent channel's mean and deviation into the 1x1 convolutions on both sides of the latents.

    The reconstruction stays the same; the latents get mean 0 and deviation 1, so that the
    scaling factor is 1.
    """
    latents = model.encode(pixels).latent_dist.mean
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    before, after = model.quant_conv, model.post_quant_conv
    channels = mean.numel()
    before.bias[:channels] -= mean
    before.bias[:channels] /= deviation
    before.weight[:channels] /= deviation[:, None, None, None]
    before.bias[channels:] -= 2 * deviation.log()  # the log-variances follow
    after.bias += (after.weight[:, :, 0, 0] * mean).sum(1)
    after.weight *= deviation[None, :, None, None]
    return model
