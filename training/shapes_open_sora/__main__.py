"""``python -m shapes_open_sora``: train, export and evaluate a small Open-Sora."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL

from lemica_backend.config import Defaults, ModelConfig
from lemica_backend.engine import Engine
from lemica_backend.models import load_model
from lemica_backend.types import GenerationRequest
from shapes.evaluate import BARS, FIRST_SEED, Clip, contact_sheet, score, show_scores
from shapes.fit import Schedule
from shapes.pool import load_pool
from shapes.scene import split_scenes
from shapes_open_sora.export import export_open_sora
from shapes_open_sora.model import TextToVideo, load_text_encoder
from shapes_open_sora.train import train_open_sora

app = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})

Folder = Annotated[Path, typer.Argument(help="Where checkpoints are kept; the same command carries on from them.")]
Source = Annotated[Path, typer.Argument(help="Weights of latte_shapes: its text encoder and autoencoder are taken.")]
Weights = Annotated[Path, typer.Argument(help="The folder of weights.")]


@app.command()
def train(
    folder: Folder,
    source: Source,
    weights: Weights,
    *,
    clips: int = 6144,
    iterations: int = 1700,
    layout_iterations: Annotated[int, typer.Option(help="First iterations, which see pure noise only.")] = 200,
    batch: int = 16,
    image_share: Annotated[float, typer.Option(help="Share of the iterations that see single frames.")] = 0.35,
) -> None:
    """Train an STDiT3 on drawn clips and export it; Ctrl-C and go on at will."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder.mkdir(parents=True, exist_ok=True)
    autoencoder = AutoencoderKL.from_pretrained(source / "vae", local_files_only=True).float().to(device).eval()
    torch.manual_seed(0)
    model = train_open_sora(
        folder,
        load_pool(folder / "pool.pt", autoencoder, clips=clips),
        schedule=Schedule(iterations, layout_iterations, batch, image_share),
        device=device,
        start=TextToVideo(load_text_encoder(source)),
    )
    export_open_sora(model, autoencoder, weights)


@app.command()
def evaluate(
    weights: Weights,
    count: int = 150,
    guidance_scale: float = 4.0,
    steps: int = 30,
    sheet: Annotated[Path | None, typer.Option(help="Save a contact sheet of the first clips here.")] = None,
) -> None:
    """Check held-out captions on unseen seeds against the bars; exit code 1 if one is missed."""
    clips: list[Clip] = []
    made = generated_clips(weights, count, guidance_scale=guidance_scale, steps=steps)
    scores = score(made, count, lambda scene, frames: clips.append((scene, frames)))
    passed = show_scores(f"{count} generated clips", scores, BARS)
    if sheet:
        contact_sheet(clips[:12], sheet)
    raise typer.Exit(0 if passed else 1)


def generated_clips(weights: Path, count: int, *, guidance_scale: float, steps: int) -> Iterator[Clip]:
    """Yield what the engine makes of held-out captions, one at a time, in float32."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model("open_sora", weights, dtype=torch.float32, device=device)
    defaults = Defaults(num_inference_steps=steps, guidance_scale=guidance_scale)
    engine = Engine(model, ModelConfig(family="open_sora", defaults=defaults))
    scenes = split_scenes()[1]
    try:
        for index in range(count):
            scene = scenes[index % len(scenes)]
            yield scene, engine.generate(GenerationRequest(scene.caption, seed=FIRST_SEED + index)).frames
    finally:
        engine.close()


if __name__ == "__main__":
    app()
