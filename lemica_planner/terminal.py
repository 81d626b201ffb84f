"""What the commands share on the terminal: output, one-line errors, progress, Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from tqdm import tqdm

from lemica_planner.errors import PlannerError

__all__ = ["console", "interruptible", "one_line_errors", "progress_bar"]

console = Console(highlight=False, markup=False)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the errors of bad input into one line and exit code 2; others are bugs and keep their traceback."""
    try:
        yield
    except (PlannerError, OSError) as exc:
        message = " ".join(_words(exc).split())
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(2) from exc


def _words(error: PlannerError | OSError) -> str:
    """Return the message; that of a missing file in words, and of the folder where that is what is missing."""
    if not isinstance(error, FileNotFoundError) or not isinstance(error.filename, str | os.PathLike):
        return str(error)
    path = Path(error.filename)
    if path.parent.is_dir():
        return f"there is no {path}; correct the path"
    return f"there is no folder {path.parent}; make it, or correct the path"


@contextmanager
def interruptible(journal: Path) -> Iterator[None]:
    """End with exit code 130 on Ctrl-C, and say where the finished work is."""
    try:
        yield
    except KeyboardInterrupt as exc:
        typer.echo(f"\ninterrupted; finished work is kept in {journal}: the same command goes on there", err=True)
        raise typer.Exit(130) from exc


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, total) that draws a bar from its first call on.

    Its rate is the mean over all work so far; the total may change.
    """
    with ExitStack() as stack:
        bars: list[tqdm[Any]] = []

        def update(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(tqdm(total=total, unit=unit, smoothing=0, dynamic_ncols=True)))
            bars[0].total = total
            bars[0].update(done - bars[0].n)

        yield update
