"""Write the trained parts in the layout that ``LattePipeline.from_pretrained`` reads."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, LattePipeline

from shapes.model import TextToVideo, make_scheduler
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
    for path in folder.rglob("config.json"):
        _drop_origin(path)


def _drop_origin(path: Path) -> None:
    """Forget from which folder of the training machine a part was loaded."""
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
