"""Make the folder of a model repository that serves a pipeline of diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from lemica_backend.config import MODEL_FILE, PIPELINE, Family, ModelConfig
from lemica_backend.errors import ModelLoadError
from lemica_backend.models import detect_family, outline_model
from lemica_backend.models.outline import Outline, call_defaults, pipeline_class
from lemica_backend.protocol import INPUTS, OUTPUTS
from lemica_backend.triton_config import DEFAULT_MAX_BATCH_SIZE
from lemica_planner.config_writer import new_config

__all__ = ["MadeFolder", "fetch_configuration", "make_folder"]

_FPS: dict[Family, int] = {  # frames a second of the videos that the models were trained on
    "latte": 8,
    "open_sora": 24,
    "wan": 16,
    "wan_i2v": 16,
    "cogvideox": 8,
    "cogvideox_i2v": 8,
    "hunyuan_video": 24,
    "hunyuan_video_15": 24,
    "ltx": 25,
    "mochi": 30,
}
# Without any negative prompt the one fails, and the other leaves its guidance out.
_OPTIONS = {"EasyAnimatePipeline": {"negative_prompt": ""}, "QwenImagePipeline": {"negative_prompt": " "}}
# For which models of a pipeline LeMiCa's authors published steps; `lemica_planner.published` has them.
_PUBLISHED = {
    "WanPipeline": ("Wan2.1-T2V-1.3B", "Wan2.1-T2V-14B"),
    "WanImageToVideoPipeline": ("Wan2.1-I2V-14B",),
    "HunyuanVideo15Pipeline": ("HunyuanVideo-1.5",),
    "QwenImagePipeline": ("Qwen-Image",),
}
_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_CONFIGURATION = ["*.json", "*/*.json"]


class MadeFolder(NamedTuple):
    """A model folder, and what it serves; a pipeline that runs as it is has no outline.

    `published` names models with this pipeline whose steps LeMiCa's authors published.
    """

    path: Path
    family: Family
    outline: Outline | None
    config: ModelConfig
    published: tuple[str, ...] = ()


def fetch_configuration(source: str) -> Path:
    """Return the folder of a pipeline's configuration: `source` itself, or what the hub has under that id.

    Raises
    ------
    ModelLoadError
        If there is no such folder, and the hub cannot be asked or has no such model.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder.resolve()
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only this way needs it

    try:
        return Path(snapshot_download(source, allow_patterns=_CONFIGURATION))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{source}: no such folder, and not to be had from the hub: {error}") from error


def make_folder(source: str, repository: Path, name: str | None = None) -> MadeFolder:
    """Write config.pbtxt and 1/model.json for a pipeline.

    Weights are neither copied nor downloaded: model.json names the folder, or the id on the hub.

    Parameters
    ----------
    source : str
        A folder in the layout of diffusers, or a model's id on the Hugging Face hub.
    repository : Path
        Where the model's folder goes; made if it is not there.
    name : str, optional
        Of the model; by default the last part of `source`.

    Raises
    ------
    ModelLoadError
        If the pipeline is not served, or the model's folder is there already.
    """
    weights = fetch_configuration(source)
    family = _family_or_pipeline(weights)
    outline = None if family == PIPELINE else outline_model(weights, dtype=torch.float32)
    folder = repository / (name or Path(source).name)
    if folder.exists():
        raise ModelLoadError(f"{folder} is there already; give another --name, or remove it")
    place = _place(source, weights, is_local=Path(source).expanduser().is_dir())
    rest = _pipeline_settings(weights) if outline is None else _settings(family, outline)
    settings = {"family": family, **place, **rest}
    config = ModelConfig.model_validate_json(json.dumps(settings))
    (folder / "1").mkdir(parents=True)
    (folder / "1" / MODEL_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    new_config(folder / "config.pbtxt", _triton_config(), "Made by `lemica init`; `lemica-planner apply` adds a plan.")
    return MadeFolder(folder, family, outline, config, _published(weights))


def _family_or_pipeline(weights: Path) -> Family:
    """Return the family, or `PIPELINE` for any other pipeline of diffusers with a transformer."""
    try:
        return detect_family(weights)
    except ModelLoadError:
        if pipeline_class(weights) is None or not (weights / "transformer").is_dir():
            raise
        return PIPELINE


def _published(weights: Path) -> tuple[str, ...]:
    """Return whose published steps may fit; none were published for two transformers."""
    if (weights / "transformer_2").exists():
        return ()
    return _PUBLISHED.get(getattr(pipeline_class(weights), "__name__", ""), ())


def _place(source: str, weights: Path, *, is_local: bool) -> dict[str, Any]:
    place = {"weights": str(weights)} if is_local else {"hub_id": source, "allow_hub": True}
    return {**place, "dtype": _stored_dtype(weights / "transformer")}


def _settings(family: Family, outline: Outline) -> dict[str, Any]:
    return {
        "fps": _FPS[family],
        "size": {"height": outline.height, "width": outline.width, "num_frames": outline.num_frames},
        "defaults": dict(outline.defaults),
    }


def _pipeline_settings(weights: Path) -> dict[str, Any]:
    kind = pipeline_class(weights)
    options = _OPTIONS.get(kind.__name__)
    return {
        **({"options": options} if options else {}),
        "defaults": call_defaults(kind),
        "limits": {"max_active": 1},
    }


def _stored_dtype(folder: Path) -> str:
    """Return the precision of the transformer's weights; bfloat16 where only their configuration is there."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return "bfloat16"
    with safe_open(files[0], framework="np") as file:
        return _STORED.get(file.get_slice(next(iter(file.keys()))).get_dtype(), "float32")


def _triton_config() -> dict[str, Any]:
    def dims(spec: Any) -> dict[str, Any]:
        return {"name": spec.name, "data_type": spec.triton_type, "dims": list(spec.dims)}

    return {
        "backend": "lemica",
        "max_batch_size": DEFAULT_MAX_BATCH_SIZE,
        "input": [dims(spec) | {"optional": not spec.required} for spec in INPUTS],
        "output": [dims(spec) for spec in OUTPUTS],
        "dynamic_batching": {},
        "instance_group": [{"kind": "KIND_MODEL", "count": 1}],
    }
