"""Read the files that Open-Sora's authors published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoTokenizer

from lemica_backend.models.open_sora.pipeline import OpenSoraPipeline
from lemica_backend.models.open_sora.settings import VideoSettings
from lemica_backend.models.open_sora.transformer import STDiT3
from lemica_backend.models.open_sora.vae import OpenSoraVAE
from lemica_backend.models.open_sora.weights import fill, read_text_encoder

WEIGHTS_FILE = "model.safetensors"
_SIZES = ("in_channels", "caption_channels", "model_max_length", "depth", "hidden_size", "num_heads", "input_sq_size")


def read_official(
    transformer: Path,
    vae: Path,
    text_encoder: Path,
    *,
    video: VideoSettings,
    dtype: torch.dtype,
    vae_config: Mapping[str, Any] | None = None,
) -> OpenSoraPipeline:
    """Read the three published folders.

    Parameters
    ----------
    transformer : Path
        OpenSora-STDiT-v3: ``config.json``, ``model.safetensors``.
    vae : Path
        OpenSora-VAE-v1.2: ``model.safetensors``, both stages.
    text_encoder : Path
        T5 v1.1 XXL and its tokenizer, as transformers reads them.
    video : VideoSettings
    dtype : torch.dtype
    vae_config : mapping, optional
        Of `OpenSoraVAE`, for others than the published one.

    Raises
    ------
    ValueError
        If the transformer is of a kind that was not published.
    OSError, RuntimeError
        If a file or a tensor is missing, or a tensor is left over or of another shape.
    """
    return OpenSoraPipeline.assemble(
        _read_transformer(transformer, dtype),
        fill(OpenSoraVAE, vae_config or {}, vae / WEIGHTS_FILE, dtype),
        read_text_encoder(text_encoder, dtype, safetensors_only=False),
        AutoTokenizer.from_pretrained(text_encoder, local_files_only=True),
        video,
    )


def _read_transformer(folder: Path, dtype: torch.dtype) -> STDiT3:
    stated = json.loads((folder / "config.json").read_text())
    depth, rows, columns = stated.get("patch_size", (1, 2, 2))
    if depth != 1 or rows != columns or not stated.get("qk_norm", True) or not stated.get("pred_sigma", True):
        raise ValueError(f"{folder}: patches of several frames or oblong ones, qk_norm or pred_sigma off are not known")
    sizes = {name: stated[name] for name in _SIZES if name in stated}
    return cast(STDiT3, fill(STDiT3, {**sizes, "patch_size": rows}, folder / WEIGHTS_FILE, dtype))
