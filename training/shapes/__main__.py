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
from shapes.fit import Schedule
from shapes.latte import train_latte
from shapes.model import TextToVideo, load_trained
from shapes.pool import load_pool
from shapes.text import teach_reading
from shapes.tokenizer import build_tokenizer

TEXT_ITERATIONS = 500

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
    iterations: int = 4000,
    layout_iterations: Annotated[int, typer.Option(help="First iterations, which see pure noise only.")] = 200,
    batch: int = 16,
    image_share: Annotated[float, typer.Option(help="Share of the iterations that see single frames.")] = 0.35,
) -> None:
    """Train autoencoder, text encoder and Latte on drawn clips, and export them; Ctrl-C and go on at will."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder.mkdir(parents=True, exist_ok=True)
    if again and not (folder / "vae").exists():
        AutoencoderKL.from_pretrained(weights / "vae").float().save_pretrained(folder / "vae")
    autoencoder = _autoencoder(folder, autoencoder_iterations, device)
    pool = load_pool(folder / "pool.pt", autoencoder, clips=clips)
    model = train_latte(
        folder,
        pool,
        schedule=Schedule(iterations, 0 if again else layout_iterations, batch, image_share),
        device=device,
        start=load_trained(weights) if again else _reader(folder, device),
    )
    export_latte(model, autoencoder, weights)


def _reader(folder: Path, device: str) -> TextToVideo:
    """Return an untrained denoiser with a text encoder that knows the captions; the latter is kept in `folder`."""
    torch.manual_seed(0)
    model = TextToVideo()
    path = folder / "text.pt"
    if path.exists():
        model.text.load_state_dict(torch.load(path, weights_only=True))
        return model
    text = model.text.to(device).requires_grad_(True)
    right = teach_reading(text, build_tokenizer(), iterations=TEXT_ITERATIONS)
    print(f"the text encoder reads {right:.1%} of the attributes of captions that it never saw")
    torch.save(text.requires_grad_(False).state_dict(), path)
    return model


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
