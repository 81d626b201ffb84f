"""``python -m shapes``: train, export and evaluate the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL

from shapes.autoencoder import train_autoencoder
from shapes.evaluate import BARS, REAL_BAR, Clip, contact_sheet, generated_clips, real_clips, score, show_scores
from shapes.export import export_latte
from shapes.latte import load_trained, train_latte
from shapes.pool import load_pool

app = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})

Folder = Annotated[Path, typer.Argument(help="Where checkpoints are kept; the same command carries on from them.")]
Weights = Annotated[Path, typer.Argument(help="A folder in the diffusers layout.")]


@app.command()
def train(
    folder: Folder,
    weights: Weights,
    *,
    again: Annotated[
        bool, typer.Option(help="Without checkpoints, begin with what WEIGHTS holds, not from nothing.")
    ] = False,
    autoencoder_iterations: int = 1200,
    clips: int = 6144,
    iterations: int = 12000,
    batch: int = 32,
    image_share: Annotated[float, typer.Option(help="Share of the iterations that see single frames.")] = 0.5,
) -> None:
    """Train the autoencoder, encode clips, train Latte, and export it; Ctrl-C and start again at will."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder.mkdir(parents=True, exist_ok=True)
    if again and not (folder / "vae").exists():
        AutoencoderKL.from_pretrained(weights / "vae").float().save_pretrained(folder / "vae")
    autoencoder = _autoencoder(folder, autoencoder_iterations, device)
    pool = load_pool(folder / "pool.pt", autoencoder, clips=clips)
    start = load_trained(weights) if again else None
    model = train_latte(
        folder, pool, iterations=iterations, batch=batch, device=device, image_share=image_share, start=start
    )
    export_latte(model, autoencoder, weights)


def _autoencoder(folder: Path, iterations: int, device: str) -> AutoencoderKL:
    done = folder / "vae"
    if not done.exists():
        train_autoencoder(folder, iterations=iterations, batch=16, device=device).save_pretrained(done)
    model = AutoencoderKL.from_pretrained(done)
    return model.to(device, memory_format=torch.channels_last)


@app.command()
def evaluate(
    weights: Weights,
    count: int = 150,
    guidance_scale: float = 4.0,
    steps: int = 50,
    sheet: Annotated[Path | None, typer.Option(help="Save a contact sheet of the first clips here.")] = None,
) -> None:
    """Check held-out captions on unseen seeds against the bars; exit code 1 if one is missed."""
    clips: list[Clip] = []
    real = score(real_clips(500), 500, lambda *_: None)
    passed = show_scores("checker on real clips", real, dict.fromkeys(real, REAL_BAR))
    made = generated_clips(weights, count, guidance_scale=guidance_scale, steps=steps)
    scores = score(made, count, lambda scene, frames: clips.append((scene, frames)))
    passed = show_scores(f"{count} generated clips", scores, BARS) and passed
    if sheet:
        contact_sheet(clips[:12], sheet)
    raise typer.Exit(0 if passed else 1)


if __name__ == "__main__":
    app()
