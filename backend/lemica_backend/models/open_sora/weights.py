"""Models filled from safetensors files; a tensor too few or too many is an error, where the libraries only warn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import T5EncoderModel


def fill(kind: Any, config: Mapping[str, Any], weights: Path, dtype: torch.dtype) -> Any:
    """Return a model of a diffusers class with the tensors of a file in place; nothing is drawn or copied first.

    Raises
    ------
    RuntimeError
        If a tensor is missing, left over or of another shape.
    """
    with torch.device("meta"):
        model: nn.Module = kind.from_config(config)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(weights).items()}
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval()


def read_text_encoder(folder: Path, dtype: torch.dtype, *, safetensors_only: bool) -> Any:
    """Return the T5 encoder of a folder; a decoder beside it is left out.

    Raises
    ------
    ValueError
        If a tensor is missing.
    """
    model, found = T5EncoderModel.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=safetensors_only or None, output_loading_info=True
    )
    if found["missing_keys"]:
        raise ValueError(f"{folder} lacks {', '.join(sorted(found['missing_keys']))}")
    return model.eval()
