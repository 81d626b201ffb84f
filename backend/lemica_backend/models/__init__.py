"""Model families by name; a family's libraries load only when it is used."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import cast

import torch

from lemica_backend.config import SchedulerConfig
from lemica_backend.errors import ModelLoadError
from lemica_backend.models.base import ModelInfo, Stem, VideoModel

FAMILIES = {  # the module of each family's adapter, and its class
    "latte": ("lemica_backend.models.latte", "LatteModel"),
    "open_sora": ("lemica_backend.models.open_sora", "OpenSoraModel"),
}

__all__ = ["FAMILIES", "ModelInfo", "Stem", "VideoModel", "load_model", "resample"]


def load_model(family: str, weights: Path, *, dtype: torch.dtype, device: str) -> VideoModel:
    """Load a model family's adapter from a diffusers folder.

    Raises
    ------
    ModelLoadError
        If the family is unknown or its weights cannot be read.
    """
    if family not in FAMILIES:
        raise ModelLoadError(f"model.json: family is {family!r}; known families are: {', '.join(FAMILIES)}")
    if not (weights / "model_index.json").is_file():
        raise ModelLoadError(f"{weights}: no model_index.json there; weights must be a folder in the diffusers layout")
    module, adapter = FAMILIES[family]
    try:
        make = getattr(import_module(module), adapter)
        return cast(VideoModel, make(weights, dtype=dtype, device=device))
    except Exception as error:  # a broken file shows as almost any error of four libraries
        raise ModelLoadError(f"cannot load the {family} weights in {weights}: {error}") from error


def resample(model: VideoModel, choice: SchedulerConfig) -> VideoModel:
    """Return the model with another sampler in place of its pipeline's, or of one that took that place before.

    Raises
    ------
    ModelLoadError
        If there is no such sampler, or it does not take the parameters.
    """
    from lemica_backend.models.resampled import ResampledModel  # noqa: PLC0415 - loads diffusers

    return ResampledModel(model.base if isinstance(model, ResampledModel) else model, choice)
