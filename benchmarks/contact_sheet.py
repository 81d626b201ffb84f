"""Draw what budgets look like: a few frames of every prompt's video in full, and of the same video at other budgets.

``python -m benchmarks.contact_sheet MODEL_DIR --prompts FILE --count 4 --budgets full,slow,fast -o FILE.png``: makes
them in process with the serving engine and the plan in ``config.pbtxt``. A row is a prompt; above each video stand its
computed steps, and its PSNR and LPIPS against the full one. ``lemica-planner report --sheet "CAPTION=FILE.png"`` embeds
the picture.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from benchmarks.videos import FIRST_SEED
from demo.lpips_weights import ensure_weights
from demo.measure import read_prompts
from demo.metrics import Frames, compare
from lemica_backend.config import MODEL_FILE, load_config
from lemica_backend.engine import Engine, load_engine
from lemica_backend.planned import FULL
from lemica_backend.replay import newest_version
from lemica_backend.types import GenerationRequest, GenerationResult
from lemica_planner.atomic import atomic_write
from lemica_planner.config_writer import read_plan

sys.path.append(str(Path(__file__).parents[1] / "training"))  # how to show a clip is known there

from shapes.sheet import film_strip

_COLUMNS = 4  # frames of a video
_SMALLEST = 140  # pixels; smaller frames are enlarged, so that there is room for the words above them
_GAP = 16
_LINE = 30
_LETTERS = 20
_GROUND, _INK, _SOFT = "#ffffff", "#1f2933", "#52606d"


class Take(NamedTuple):
    """One video, and what stands above it."""

    label: str
    frames: Frames


class Row(NamedTuple):
    """The videos of one prompt."""

    prompt: str
    takes: tuple[Take, ...]


def make_row(engine: Engine, prompt: str, seed: int, budgets: Sequence[str]) -> Row:
    """Generate a prompt in full and at every budget; the noise is the same."""
    videos = {
        budget: engine.generate(GenerationRequest(prompt, seed=seed, budget=budget))
        for budget in dict.fromkeys((FULL, *budgets))
    }
    full = videos[FULL].frames
    return Row(prompt, tuple(Take(_label(budget, videos[budget], full), videos[budget].frames) for budget in budgets))


def _label(budget: str, made: GenerationResult, full: Frames) -> str:
    steps = f"{budget}, {len(made.info['computed_steps'])} of {made.info['num_inference_steps']} steps computed"
    if budget == FULL:
        return steps
    found = compare(made.frames, full)
    return f"{steps}: PSNR {found.psnr:.1f} dB, LPIPS {found.lpips:.5f}"


def draw_sheet(rows: Sequence[Row]) -> Image.Image:
    """Return the picture: a row for each prompt, a strip of frames for each of its videos."""
    strips = [[_strip(take.frames) for take in row.takes] for row in rows]
    height, width, _ = strips[0][0].shape
    step = 2 * _LINE + height + _GAP
    size = (len(strips[0]) * (width + _GAP) + _GAP, len(rows) * step + _GAP)
    sheet = Image.new("RGB", size, _GROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LETTERS)
    for number, (row, videos) in enumerate(zip(rows, strips, strict=True)):
        top = _GAP + number * step
        pen.text((_GAP, top), row.prompt, _INK, font)
        for place, (take, video) in enumerate(zip(row.takes, videos, strict=True)):
            left = _GAP + place * (width + _GAP)
            pen.text((left, top + _LINE), take.label, _SOFT, font)
            sheet.paste(Image.fromarray(video), (left, top + 2 * _LINE))
    return sheet


def _strip(frames: Frames) -> Frames:
    times = -(-_SMALLEST // min(frames.shape[1:3]))
    return film_strip(frames, _COLUMNS).repeat(times, axis=0).repeat(times, axis=1)


def _rows(engine: Engine, prompts: Sequence[str], budgets: Sequence[str]) -> Iterator[Row]:
    for number, prompt in enumerate(tqdm(prompts, unit="prompt")):
        yield make_row(engine, prompt, FIRST_SEED + number, budgets)


def main(
    model_dir: Annotated[Path, typer.Argument(help="The model's folder, with config.pbtxt.")],
    *,
    prompts: Annotated[Path, typer.Option(help="One prompt a line.")],
    count: Annotated[int, typer.Option(min=1, help="Only the first prompts.")] = 4,
    budgets: Annotated[str, typer.Option(help="Names or numbers in the plan, and full.")] = "full,slow,fast",
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the picture goes.")] = Path("sheet.png"),
) -> None:
    """Draw the sheet."""
    ensure_weights()
    plan = read_plan(model_dir / "config.pbtxt")
    version = newest_version(model_dir)
    engine = load_engine(version, load_config(version / MODEL_FILE), plan.to_json())
    try:
        sheet = draw_sheet(list(_rows(engine, read_prompts(prompts)[:count], budgets.split(","))))
    finally:
        engine.close()
    with atomic_write(output) as file:
        sheet.save(file, "PNG", optimize=True)
    print(f"contact sheet: {output}")


if __name__ == "__main__":
    typer.run(main)
