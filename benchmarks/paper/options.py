"""What the four commands have in common on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.models import OpenModel
from benchmarks.videos import FIRST_SEED
from demo.lpips_weights import ensure_weights
from demo.measure import read_prompts
from lemica_backend.errors import LemicaError
from lemica_planner import PlannerError, Sample

__all__ = [
    "Count",
    "Draws",
    "Eager",
    "ModelDirs",
    "Output",
    "Pool",
    "PoolSeeds",
    "Prompts",
    "Samples",
    "SpanShare",
    "Work",
    "Workers",
    "facts",
    "held_out",
    "numbers",
    "refusals",
]

_HERE = Path(__file__).parents[1]
HELD_OUT_FILE = _HERE / "held_out_prompts.txt"
POOL_FILE = _HERE / "calibration_pool.txt"
WORK_FOLDER = Path("runs/paper")
SPAN_SHARE = 0.2  # 10 of 50 steps

ModelDirs = Annotated[list[Path], typer.Argument(help="Model folders, each with config.pbtxt.")]
Prompts = Annotated[Path, typer.Option(help="One held-out prompt a line.")]
Count = Annotated[int | None, typer.Option(min=1, help="Only the first prompts.")]
Work = Annotated[Path, typer.Option(help="Where finished work is kept; the same command goes on there.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write the JSON there as well.")]
Pool = Annotated[Path, typer.Option(help="Prompts to calibrate on, one a line.")]
PoolSeeds = Annotated[int, typer.Option(min=1, help="Noises for each prompt of the pool.")]
Samples = Annotated[int, typer.Option(min=1, help="Samples of the pool in a calibration draw.")]
Draws = Annotated[int, typer.Option(min=1, help="Calibration draws; each makes its own plans.")]
SpanShare = Annotated[float, typer.Option(min=0, max=1, help="Longest edge, as a share of the steps.")]
Eager = Annotated[bool, typer.Option("--eager", help="Run the block stack in torch, whatever model.json says.")]
Workers = Annotated[int, typer.Option(min=0, help="Calibrate on this many Ray workers; 0: in this process.")]


def held_out(prompts: Path, count: int | None) -> list[Sample]:
    """Return the samples that plans are evaluated on."""
    return [Sample(prompt, FIRST_SEED + number) for number, prompt in enumerate(read_prompts(prompts)[:count])]


def numbers(text: str) -> list[int]:
    """Read ``8,10,12`` into different numbers, ascending.

    Raises
    ------
    typer.BadParameter
        If a part is no positive number.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"give positive numbers separated by commas, such as 8,10,12; got {text!r}")
    return sorted({int(part) for part in parts})


def facts(models: Sequence[OpenModel], samples: Sequence[Sample], **more: Any) -> dict[str, Any]:
    """Return what a report was measured with."""
    weights = {opened.name: opened.model.info.weights_hash for opened in models}
    engines = {opened.name: opened.model.info.block_engine for opened in models}
    return {"models": weights, "block_engines": engines, "prompts": len(samples), "first_seed": FIRST_SEED, **more}


@contextmanager
def refusals() -> Iterator[None]:
    """Fetch the LPIPS weights first; turn bad input into one line and exit code 2, Ctrl-C into exit code 130."""
    try:
        ensure_weights()
        yield
    except (PlannerError, LemicaError, OSError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        typer.echo("\ninterrupted; finished work is kept: the same command goes on there", err=True)
        raise typer.Exit(130) from error
