"""The files around a report: the curves that it reads, and the pictures that it writes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lemica_planner.curves_file import Words, read_curves, read_words
from lemica_planner.errors import PlanFormatError
from lemica_planner.pictures import Chart, Picture

__all__ = ["read_all_curves", "read_all_words", "save_pictures"]


def read_all_curves(paths: Sequence[Path], ours: Sequence[str]) -> dict[str, dict[str, Chart]]:
    """Return the charts of all files by the file's name without its ending, and by measure.

    Raises
    ------
    PlanFormatError
        If a file holds no curves or broken ones, or if two have the same name; see `read_curves`.
    OSError
        If one cannot be read.
    """
    found: dict[str, dict[str, Chart]] = {}
    for path in paths:
        if path.stem in found:
            raise PlanFormatError(f"two files of curves are called {path.stem}; rename one: {path}")
        found[path.stem] = read_curves(_read(path), str(path), ours)
    return found


def read_all_words(paths: Sequence[Path]) -> dict[str, Words]:
    """Return what the files say of their charts, by the file's name without its ending; raises as `read_all_curves`."""
    return {path.stem: read_words(_read(path), str(path)) for path in paths}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def save_pictures(pictures: Mapping[str, Picture], folder: Path) -> Iterator[Path]:
    """Write each picture as a PNG, and yield its path.

    Raises
    ------
    PlanFormatError
        If matplotlib is not installed.
    OSError
        If a file cannot be written.
    """
    try:
        from lemica_planner.pictures.png import save_png  # noqa: PLC0415 - only who asks for PNGs needs matplotlib
    except ImportError as exc:
        raise PlanFormatError(
            f"PNG files need matplotlib: {exc}; pip install '.[report]' in a checkout of lemica, or leave --png out"
        ) from exc
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        path = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-.')}.png"
        save_png(picture, path)
        yield path
