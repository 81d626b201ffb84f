"""A pipeline of diffusers without its weights: every part from its configuration, on torch's meta device.

Tells sizes and counts of what would be loaded, in seconds and without the memory.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from lemica_backend.models.base import text_branches

__all__ = ["Outline", "call_defaults", "outline_parts", "pipeline_class"]

_INDEX = "model_index.json"


@dataclass(frozen=True)
class Outline:
    """What can be known of a model without its weights.

    Attributes
    ----------
    height, width, num_frames : int
        Of its videos.
    parts : mapping of str to torch.nn.Module
        The pipeline's modules, on the meta device.
    tokens, channels : int
        Shape of what the block stack adds, for one guidance branch of one request.
    latents_shape : tuple of int
    defaults : mapping of str to int or float
        The pipeline's own number of steps and guidance scale, where it has them.
    dtypes : mapping of str to torch.dtype
        Of parts that are not loaded in the model's own precision.
    takes_image : bool
        Whether its videos begin with an image.
    branches : callable
        Returns the guidance branches that run at a guidance scale.
    """

    height: int
    width: int
    num_frames: int
    parts: Mapping[str, nn.Module]
    tokens: int
    channels: int
    latents_shape: tuple[int, ...]
    defaults: Mapping[str, float]
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    takes_image: bool = False
    branches: Callable[[float], Sequence[str]] = text_branches


def call_defaults(pipeline_class: Any, guider: Any = None) -> dict[str, float]:
    """Return the steps and guidance scale that a pipeline takes if it is not told: of its call, or of its guider."""
    known = inspect.signature(pipeline_class.__call__).parameters
    wanted = {name: known[name].default for name in ("num_inference_steps", "guidance_scale") if name in known}
    if guider is not None:
        wanted["guidance_scale"] = getattr(guider, "guidance_scale", None)
    return {name: value for name, value in wanted.items() if isinstance(value, int | float)}


def pipeline_class(folder: Path) -> Any:
    """Return the class of diffusers that ``model_index.json`` names, or None if there is none."""
    try:
        name = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return getattr(import_module("diffusers"), name, None) if isinstance(name, str) else None


def outline_parts(folder: Path) -> dict[str, Any]:
    """Return the parts that ``model_index.json`` names, and its other settings; modules hold no weights.

    Tokenizers are left out: nothing that is counted depends on them.
    """
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    parts = {name: value for name, value in index.items() if not name.startswith("_")}
    return {name: _outline(folder / name, value) if _is_part(value) else value for name, value in parts.items()}


def _is_part(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2


def _outline(folder: Path, origin: list[str | None]) -> Any:
    library, name = origin
    kind = getattr(import_module(library), name, None) if library in ("diffusers", "transformers") and name else None
    if kind is None or "Tokenizer" in kind.__name__ or "Processor" in kind.__name__:
        return None
    if not issubclass(kind, nn.Module):
        return kind.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        if library == "diffusers":
            return kind.from_config(kind.load_config(folder, local_files_only=True))
        return kind(AutoConfig.from_pretrained(folder, local_files_only=True))
