"""``python -m lemica_backend.models.open_sora``: the published files as a folder that the server reads."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer

from lemica_backend.models.open_sora.official import read_official
from lemica_backend.models.open_sora.settings import VideoSettings


class Precision(StrEnum):
    """In which the weights are stored."""

    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


def convert(
    transformer: Annotated[Path, typer.Argument(help="Folder of OpenSora-STDiT-v3: config.json, model.safetensors.")],
    vae: Annotated[Path, typer.Argument(help="Folder of OpenSora-VAE-v1.2: model.safetensors.")],
    text_encoder: Annotated[Path, typer.Argument(help="Folder of T5 v1.1 XXL with its tokenizer.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    *,
    num_frames: Annotated[int, typer.Option(min=1, help="1, or at least 17.")] = 51,
    height: Annotated[int, typer.Option(min=16)] = 480,
    width: Annotated[int, typer.Option(min=16)] = 854,
    fps: Annotated[float, typer.Option(min=1, help="Frames a second that motion is made for.")] = 24.0,
    dtype: Annotated[Precision, typer.Option(help="Of the stored weights.")] = Precision.BFLOAT16,
) -> None:
    """Convert the published files of Open-Sora 1.2; nothing is downloaded."""
    video = VideoSettings(num_frames=num_frames, height=height, width=width, fps=fps)
    precision = getattr(torch, dtype.value)
    read_official(transformer, vae, text_encoder, video=video, dtype=precision).save_pretrained(out)
    typer.echo(f"wrote {out}")


if __name__ == "__main__":
    typer.run(convert)
