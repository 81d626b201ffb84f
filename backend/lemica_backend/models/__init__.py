"""Model families by name; a family's libraries load only when it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

from lemica_backend.config import Family, Memory, SchedulerConfig, Size
from lemica_backend.errors import ModelLoadError
from lemica_backend.models.base import ModelInfo, Stem, Text, VideoModel

if TYPE_CHECKING:
    from lemica_backend.models.outline import Outline

__all__ = [
    "FAMILIES",
    "ModelInfo",
    "Stem",
    "Text",
    "VideoModel",
    "detect_family",
    "load_model",
    "outline_model",
    "resample",
]


class _Adapter(NamedTuple):
    pipeline: str  # ``_class_name`` in model_index.json
    module: str
    model: str
    also: tuple[Family, ...] = ()  # whose weights it loads too, if model.json names it


FAMILIES: dict[Family, _Adapter] = {
    "latte": _Adapter("LattePipeline", "latte", "LatteModel"),
    "open_sora": _Adapter("OpenSoraPipeline", "open_sora", "OpenSoraModel"),
    "wan": _Adapter("WanPipeline", "wan", "WanModel"),
    "wan_i2v": _Adapter("WanImageToVideoPipeline", "wan_image", "WanImageModel", also=("wan",)),
    "cogvideox": _Adapter("CogVideoXPipeline", "cogvideox", "CogVideoXModel"),
    "cogvideox_i2v": _Adapter("CogVideoXImageToVideoPipeline", "cogvideox_image", "CogVideoXImageModel"),
    "hunyuan_video": _Adapter("HunyuanVideoPipeline", "hunyuan_video", "HunyuanVideoModel"),
    "hunyuan_video_15": _Adapter("HunyuanVideo15Pipeline", "hunyuan_video_15", "HunyuanVideo15Model"),
    "ltx": _Adapter("LTXPipeline", "ltx", "LtxModel"),
    "mochi": _Adapter("MochiPipeline", "mochi", "MochiModel"),
}


def load_model(
    family: Family | None,
    weights: Path,
    *,
    dtype: torch.dtype,
    device: str,
    size: Size | None = None,
    options: Mapping[str, object] | None = None,
    memory: Memory = Memory(),  # noqa: B008 - it cannot change
) -> VideoModel:
    """Load a model family's adapter from a diffusers folder.

    Parameters
    ----------
    family : str or None
        What the weights must be; None takes what they are. Wan 2.2 5B, published as ``wan``, is ``wan_i2v``, too.
    weights : Path
    dtype, device
        Where and in what precision the model computes.
    size : Size, optional
        Of every video; what it leaves out is the pipeline's default.
    options : mapping, optional
        What the family's pipeline takes beside a request.
    memory : Memory, optional
        How the weights are kept.

    Raises
    ------
    ModelLoadError
        If the weights are of another family or of none, or cannot be read, or the size or an option is not served.
    """
    found = detect_family(weights)
    if family is not None and found in _also(family):
        found = family
    if family not in (None, found):
        theirs = f"{found!r} ({FAMILIES[found].pipeline})"
        raise ModelLoadError(f"model.json: family is {family!r}, but the weights in {weights} are of {theirs}")
    try:
        place = {"dtype": dtype, "device": device, "memory": memory}
        return cast(VideoModel, _adapter(found)(weights, size=size, options=options, **place))
    except Exception as error:  # a broken file shows as almost any error of four libraries
        raise ModelLoadError(f"cannot load the {found} weights in {weights}: {error}") from error


def outline_model(
    weights: Path, *, dtype: torch.dtype, size: Size | None = None, options: Mapping[str, object] | None = None
) -> Outline:
    """Return what can be known of a model from its configuration files alone; raises as `load_model`."""
    family = detect_family(weights)
    try:
        return cast("Outline", _adapter(family).outline(weights, dtype=dtype, size=size, options=options))
    except Exception as error:  # as above
        raise ModelLoadError(f"cannot outline the {family} pipeline in {weights}: {error}") from error


def _also(family: Family) -> tuple[Family, ...]:
    return FAMILIES[family].also if family in FAMILIES else ()


def _adapter(family: Family) -> Any:
    found = FAMILIES[family]
    return getattr(import_module(f"{__name__}.{found.module}"), found.model)  # loads diffusers


def resample(model: VideoModel, choice: SchedulerConfig) -> VideoModel:
    """Return the model with another sampler in place of its pipeline's, or of one that took that place before.

    Raises
    ------
    ModelLoadError
        If there is no such sampler, it does not take the parameters, or the family's pipeline has a schedule that no
        sampler makes by itself.
    """
    from lemica_backend.models.resampled import ResampledModel  # noqa: PLC0415 - loads diffusers

    return ResampledModel(model.base if isinstance(model, ResampledModel) else model, choice)


def detect_family(weights: Path) -> Family:
    """Return the family whose pipeline ``model_index.json`` names.

    Raises
    ------
    ModelLoadError
        If there is no such file, or it names another pipeline.
    """
    index = weights / "model_index.json"
    if not index.is_file():
        raise ModelLoadError(f"{weights}: no model_index.json there; weights must be a folder in the diffusers layout")
    try:
        name = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(f"{index}: no JSON object with a _class_name: {error!r}") from error
    for family, adapter in FAMILIES.items():
        if adapter.pipeline == name:
            return family
    served = ", ".join(adapter.pipeline for adapter in FAMILIES.values())
    raise ModelLoadError(
        f"{index}: the pipeline is {name!r}; served are {served}, and any other pipeline of diffusers with "
        '"family": "pipeline" in model.json, one request at a time'
    )
