"""Does the model do what captions say? Held-out captions, unseen seeds, plain image analysis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import LattePipeline
from PIL import Image
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from shapes.checker import recognise
from shapes.render import draw
from shapes.scene import Scene, split_scenes
from shapes.sheet import Frames, film_strip

BARS = {"colour": 0.95, "background": 0.95, "motion": 0.90, "shape": 0.85}
REAL_BAR = 0.99
FIRST_SEED = 1_000_000  # training noise is never drawn from these seeds

Clip = tuple[Scene, Frames]


def real_clips(count: int, seed: int = FIRST_SEED) -> Iterator[Clip]:
    """Yield held-out scenes drawn by the generator, to check the checker."""
    rng = np.random.default_rng(seed)
    scenes = split_scenes()[1]
    for index in range(count):
        scene = scenes[index % len(scenes)]
        yield scene, draw(scene, rng)


def generated_clips(folder: Path, count: int, *, guidance_scale: float, steps: int) -> Iterator[Clip]:
    """Yield what the pipeline in `folder` makes of held-out captions, one at a time, in float32."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = LattePipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32).to(device)
    pipeline.set_progress_bar_config(disable=True)
    scenes = split_scenes()[1]
    for index in range(count):
        scene = scenes[index % len(scenes)]
        output = pipeline(
            scene.caption,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=torch.Generator("cpu").manual_seed(FIRST_SEED + index),
            output_type="np",
            clean_caption=False,
            height=None,  # the model's own size, not 512
            width=None,
        )
        yield scene, (output.frames[0] * 255).round().astype(np.uint8)


def score(clips: Iterator[Clip], total: int, keep: Callable[[Scene, Frames], None]) -> dict[str, float]:
    """Return the share of clips in which each attribute is recognised as the caption has it."""
    right = dict.fromkeys(Scene._fields, 0)
    for scene, frames in tqdm(clips, total=total, mininterval=2):
        seen = recognise(frames)
        for field in Scene._fields:
            right[field] += getattr(seen, field) == getattr(scene, field)
        keep(scene, frames)
    return {field: hits / total for field, hits in right.items()}


def show_scores(title: str, scores: dict[str, float], bars: dict[str, float]) -> bool:
    """Print the scores next to their bars; return whether all of them are reached."""
    table = Table("attribute", "right", "bar", title=title)
    for field, value in scores.items():
        table.add_row(field, f"{value:.1%}", f"{bars[field]:.0%}")
    Console().print(table)
    return all(value >= bars[field] for field, value in scores.items())


def contact_sheet(clips: list[Clip], path: Path, *, columns: int = 8) -> None:
    """Save a picture with one row a clip and `columns` of its frames."""
    rows = [film_strip(frames, columns) for _, frames in clips]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)
