"""Write the trained parts in the layout that ``LattePipeline.from_pretrained`` reads."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, LattePipeline

from shapes.latte import TextToVideo, make_scheduler
from shapes.tokenizer import build_tokenizer


def export_latte(model: TextToVideo, autoencoder: AutoencoderKL, folder: Path) -> None:
    """Save half-precision weights; whoever loads them chooses the precision to compute in."""
    pipeline = LattePipeline(
        tokenizer=build_tokenizer(),
        text_encoder=model.text,
        vae=autoencoder,
        transformer=model.denoiser,
        scheduler=make_scheduler(),
    )
    pipeline.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)
