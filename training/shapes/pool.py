"""A pool of encoded clips, made once and read by every training iteration."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from shapes.autoencoder import to_pixels
from shapes.render import draw
from shapes.scene import Scene, split_scenes


class Pool(NamedTuple):
    """Latents of shape (clips, 4, 16, 20, 20), float16, and the index of each clip's scene among the trained ones."""

    latents: Tensor
    scenes: Tensor


def load_pool(path: Path, autoencoder: AutoencoderKL, *, clips: int, seed: int = 1) -> Pool:
    """Read the pool from `path`, or draw and encode it there first."""
    if not path.exists():
        torch.save(tuple(_make_pool(autoencoder, clips, seed)), path)
    return Pool(*torch.load(path, weights_only=True))


@torch.no_grad()
def _make_pool(autoencoder: AutoencoderKL, clips: int, seed: int) -> Pool:
    scenes = split_scenes()[0]
    rng = np.random.default_rng(seed)
    picks = torch.arange(clips) % len(scenes)
    latents = [_encode(autoencoder, scenes[pick], rng) for pick in tqdm(picks, desc="encode clips", mininterval=5)]
    return Pool(torch.stack(latents), picks)


def _encode(autoencoder: AutoencoderKL, scene: Scene, rng: np.random.Generator) -> Tensor:
    pixels = to_pixels(draw(scene, rng)).to(autoencoder.device, memory_format=torch.channels_last)
    with torch.autocast(pixels.device.type, torch.bfloat16):
        mean = autoencoder.encode(pixels).latent_dist.mean
    latents: Tensor = mean.transpose(0, 1).half().cpu()
    return latents
