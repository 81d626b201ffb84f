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
from lemica_backend.models.offloading import text_encoders
from lemica_backend.models.outline import Outline, outline_parts
from lemica_backend.models.weight_sizes import weight_bytes
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
        In which the transformers compute.
    branches : int
        Guidance branches of a request with the default guidance scale.
    parts : mapping of str to (int, int)
        By module, its parameters and their bytes.
    waiting : frozenset of str
        Modules that are on the GPU only while they are used.
    residual_bytes : int
        What one computed step leaves in the step cache, for one branch; 0 without an outline.
    """

    outline: Outline | None
    dtype: str
    branches: int
    parts: Mapping[str, tuple[int, int]]
    residual_bytes: int
    waiting: frozenset[str] = frozenset()

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights that are always on the GPU."""
        return sum(size for name, (_, size) in self.parts.items() if name not in self.waiting)

    @property
    def visiting_bytes(self) -> int:
        """Most bytes of weights that are there for a while; no step or decoding runs meanwhile."""
        return max((self.parts[name][1] for name in self.waiting), default=0)

    def cache_bytes(self, steps: int) -> int:
        """Return what a request's step cache holds when its operators look at so many computed steps."""
        return self.residual_bytes * self.branches * steps

    def requests_in(self, memory_bytes: float, reserve_bytes: float, steps: int) -> int:
        """Return how many requests' step caches fit beside the weights; latents and texts are small beside them.

        The reserve is for activations and decoding, and for text encoders while they visit: one of them at a time.
        """
        room = memory_bytes - self.weight_bytes - max(reserve_bytes, self.visiting_bytes)
        return max(0, int(room // self.cache_bytes(steps)))


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
    waiting = text_encoders(found) if config.offload.text_encoders else {}
    branches = outline.branches if outline else text_branches
    return Footprint(
        outline=outline,
        dtype=config.dtype,
        branches=len(branches(config.defaults.guidance_scale)),
        parts=_count(found, outline.dtypes if outline else {}, config),
        residual_bytes=outline.tokens * outline.channels * dtype.itemsize if outline else 0,
        waiting=frozenset(waiting),
    )


def _count(
    parts: Mapping[str, nn.Module], dtypes: Mapping[str, torch.dtype], config: ModelConfig
) -> dict[str, tuple[int, int]]:
    """Return each part's parameters, and their bytes as they are loaded."""
    usual, wanted, counted = getattr(torch, config.dtype), config.quantization, {}
    for name in wanted.components if wanted else ():
        if name not in parts:
            raise ModelLoadError(f"model.json, quantization.components: got {name!r}; there are {', '.join(parts)}")
    for name, part in parts.items():
        count = sum(weight.numel() for weight in part.parameters())
        quantization = wanted if wanted and name in wanted.components else None
        try:
            counted[name] = count, weight_bytes(part, dtypes.get(name, usual), quantization)
        except ValueError as error:
            raise ModelLoadError(str(error)) from error
    return counted


def _read_parts(weights: Path) -> dict[str, nn.Module]:
    try:
        parts = outline_parts(weights)
    except Exception as error:  # a broken file shows as almost any error of two libraries
        raise ModelLoadError(f"cannot outline the pipeline in {weights}: {error}") from error
    return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}


def _configuration(config: ModelConfig, version: Path) -> Path:
    folder = config.weights_dir(version)
    return folder if folder is not None else fetch_configuration(config.hub_id or "")
