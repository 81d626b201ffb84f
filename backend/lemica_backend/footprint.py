"""What a model needs in memory, from its configuration files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lemica_backend.config import MODEL_FILE, PIPELINE, ModelConfig, load_config
from lemica_backend.errors import ModelLoadError
from lemica_backend.model_folder import fetch_configuration
from lemica_backend.models import outline_model
from lemica_backend.models.base import text_branches
from lemica_backend.models.outline import Outline, outline_parts
from lemica_backend.replay import newest_version

__all__ = ["Footprint", "footprint"]


@dataclass(frozen=True)
class Footprint:
    """Sizes of a model and of its requests.

    Attributes
    ----------
    outline : Outline or None
        None for a pipeline that runs as it is: what its blocks are is found when it runs.
    dtype : str
        In which everything is counted.
    branches : int
        Guidance branches of a request with the default guidance scale.
    parts : mapping of str to (int, int)
        By module, its parameters and their bytes.
    residual_bytes : int
        What one computed step leaves in the step cache, for one branch; 0 without an outline.
    """

    outline: Outline | None
    dtype: str
    branches: int
    parts: Mapping[str, tuple[int, int]]
    residual_bytes: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(size for _, size in self.parts.values())

    def cache_bytes(self, steps: int) -> int:
        """Return what a request's step cache holds when its operators look at so many computed steps."""
        return self.residual_bytes * self.branches * steps

    def requests_in(self, memory_bytes: float, steps: int) -> int:
        """Return how many requests' step caches fit beside the weights; latents and texts are small beside them."""
        return max(0, int((memory_bytes - self.weight_bytes) // self.cache_bytes(steps)))


def footprint(model_dir: Path) -> Footprint:
    """Return what the model of a folder needs.

    Raises
    ------
    ModelLoadError
        If model.json or the pipeline's configuration cannot be read.
    """
    version = newest_version(model_dir)
    config = load_config(version / MODEL_FILE)
    dtype = getattr(torch, config.dtype)
    weights = _configuration(config, version)
    outline = None
    if config.family != PIPELINE:
        outline = outline_model(weights, dtype=dtype, size=config.size, options=config.options)
    found = outline.parts if outline else _read_parts(weights)
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in found.items()}
    return Footprint(
        outline=outline,
        dtype=config.dtype,
        branches=len(text_branches(config.defaults.guidance_scale)),
        parts={name: (count, count * dtype.itemsize) for name, count in counts.items()},
        residual_bytes=outline.tokens * outline.channels * dtype.itemsize if outline else 0,
    )


def _read_parts(weights: Path) -> dict[str, nn.Module]:
    try:
        parts = outline_parts(weights)
    except Exception as error:  # a broken file shows as almost any error of two libraries
        raise ModelLoadError(f"cannot outline the pipeline in {weights}: {error}") from error
    return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}


def _configuration(config: ModelConfig, version: Path) -> Path:
    folder = config.weights_dir(version)
    return folder if folder is not None else fetch_configuration(config.hub_id or "")
