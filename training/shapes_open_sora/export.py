"""Write the trained parts as a folder that the family open_sora reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL

from lemica_backend.models.open_sora import OpenSoraPipeline, VideoSettings
from lemica_backend.models.open_sora.vae import OpenSoraVAE
from shapes.render import FRAMES, SIZE
from shapes.tokenizer import build_tokenizer
from shapes_open_sora.model import FPS, TextToVideo
from shapes_open_sora.train import SHIFT

VIDEO = VideoSettings(
    num_frames=FRAMES, height=SIZE, width=SIZE, fps=FPS, aesthetic_score=None, clean_caption=False, shift=SHIFT
)


def export_open_sora(model: TextToVideo, autoencoder: AutoencoderKL, folder: Path) -> None:
    """Save half-precision weights; whoever loads them chooses the precision to compute in."""
    OpenSoraPipeline.assemble(
        model.denoiser.to(torch.float16),
        _one_stage(autoencoder),
        model.text.to(torch.float16),
        build_tokenizer(),
        VIDEO,
    ).save_pretrained(folder)


def _one_stage(autoencoder: AutoencoderKL) -> OpenSoraVAE:
    """Return it as an autoencoder without a second stage; its latents are standardised already."""
    config = {name: value for name, value in autoencoder.config.items() if not name.startswith("_")}
    vae: Any = OpenSoraVAE(spatial=config, temporal=None, scaling_factor=1.0)
    vae.spatial_vae["module"].load_state_dict(autoencoder.state_dict())
    return cast(OpenSoraVAE, vae.to(torch.float16))
