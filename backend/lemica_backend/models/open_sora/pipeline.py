"""The parts of a model and the video they are for, in one folder in the layout of diffusers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from transformers import AutoConfig, AutoTokenizer, T5EncoderModel

from lemica_backend.models.open_sora.scheduler import RectifiedFlowScheduler
from lemica_backend.models.open_sora.settings import VideoSettings
from lemica_backend.models.open_sora.transformer import STDiT3
from lemica_backend.models.open_sora.vae import OpenSoraVAE
from lemica_backend.models.open_sora.weights import fill, read_text_encoder

INDEX_FILE = "model_index.json"
CLASS_NAME = "OpenSoraPipeline"
_KINDS: dict[str, Any] = {"transformer": STDiT3, "vae": OpenSoraVAE}
_PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True)
class OpenSoraPipeline:
    """All that makes videos.

    Attributes
    ----------
    transformer : STDiT3
    vae : OpenSoraVAE
    text_encoder : T5EncoderModel
    tokenizer
        T5's, of transformers.
    scheduler : RectifiedFlowScheduler
        Its shift is the one that `video` asks for.
    video : VideoSettings
    """

    transformer: STDiT3
    vae: OpenSoraVAE
    text_encoder: Any
    tokenizer: Any
    scheduler: RectifiedFlowScheduler
    video: VideoSettings

    @classmethod
    def assemble(
        cls, transformer: STDiT3, vae: OpenSoraVAE, text_encoder: Any, tokenizer: Any, video: VideoSettings
    ) -> OpenSoraPipeline:
        """Return the parts with the scheduler that the video needs."""
        scheduler = RectifiedFlowScheduler(shift=video.timestep_shift)
        return cls(transformer.eval(), vae.eval(), text_encoder.eval(), tokenizer, scheduler, video)

    @classmethod
    def from_pretrained(cls, folder: Path, *, dtype: torch.dtype) -> OpenSoraPipeline:
        """Read a folder that `save_pretrained` wrote; only safetensors files are read.

        Raises
        ------
        ValueError
            If the folder holds another kind of pipeline, or a setting that is not allowed.
        OSError, RuntimeError
            If a file or a tensor is missing.
        """
        video = _read_video(folder / INDEX_FILE)
        return cls.assemble(
            _read_part(STDiT3, folder / "transformer", dtype),
            _read_part(OpenSoraVAE, folder / "vae", dtype),
            read_text_encoder(folder / "text_encoder", dtype, safetensors_only=True),
            AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            video,
        )

    @classmethod
    def outline(cls, folder: Path) -> OpenSoraPipeline:
        """Return the pipeline of a folder without weights and tokenizer, on the meta device."""
        with torch.device("meta"):
            text = T5EncoderModel(AutoConfig.from_pretrained(folder / "text_encoder", local_files_only=True))
            parts = (kind.from_config(kind.load_config(folder / name)) for name, kind in _KINDS.items())
            transformer, vae = parts
        return cls.assemble(transformer, vae, text, None, _read_video(folder / INDEX_FILE))

    def save_pretrained(self, folder: Path) -> None:
        """Write every part into a folder of its own, and the index."""
        for name in _PARTS:
            getattr(self, name).save_pretrained(folder / name)
        parts = {name: _origin(getattr(self, name)) for name in _PARTS}
        index = {"_class_name": CLASS_NAME, **parts, "video": self.video.model_dump()}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def _origin(part: object) -> tuple[str, str]:
    return type(part).__module__.partition(".")[0], type(part).__name__


def _read_part(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    config = kind.load_config(folder, local_files_only=True)
    return fill(kind, config, folder / SAFETENSORS_WEIGHTS_NAME, dtype)


def _read_video(path: Path) -> VideoSettings:
    index = json.loads(path.read_text())
    kind = index.get("_class_name")
    if kind != CLASS_NAME:
        raise ValueError(f"{path}: _class_name is {kind!r}; the family open_sora reads {CLASS_NAME!r}")
    return VideoSettings.model_validate(index.get("video", {}))
