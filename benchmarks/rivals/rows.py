"""Results line by line, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.rivals.rival import Rival


@dataclass(frozen=True)
class QualityRow:
    """One video of one rival against the full video of the same prompt and seed.

    Attributes
    ----------
    recipe : str
        `Rival.digest`.
    weights : str
        Fingerprint of the model's weights.
    forwards : float
        Block work that ran, in units of one guided forward of all blocks.
    lpips, ssim, psnr_db, latents_l1 : float
        Against the full video; PSNR is at most 100.
    attributes_right : float or None
        Share of what the prompt names that can be seen; None for free text.
    """

    KIND: ClassVar[str] = "quality"
    method: str
    setting: str
    recipe: str
    weights: str
    prompt: str
    seed: int
    forwards: float
    lpips: float
    ssim: float
    psnr_db: float
    latents_l1: float
    attributes_right: float | None


@dataclass(frozen=True)
class TimeRow:
    """One timed run: seconds of denoising over those of the full runs before and after it."""

    KIND: ClassVar[str] = "time"
    method: str
    setting: str
    recipe: str
    weights: str
    prompt: str
    seed: int
    round: int
    ratio: float


@dataclass(frozen=True)
class FactsRow:
    """What `calibration` measured on the samples named."""

    KIND: ClassVar[str] = "facts"
    weights: str
    samples: list[list[Any]]
    mag_ratios: list[float]
    polynomial: list[float]


Row = QualityRow | TimeRow | FactsRow
_KINDS: dict[str, type[Row]] = {kind.KIND: kind for kind in (QualityRow, TimeRow, FactsRow)}


class Store:
    """A file of rows, one JSON object a line.

    Parameters
    ----------
    path : Path
        Made with its folder if it is not there. A last line that a stopped run left unfinished is cut off.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        whole, newline, torn = path.read_text(encoding="utf-8").rpartition("\n")
        if torn:
            path.write_text(whole + newline, encoding="utf-8")
        self._path = path
        self.rows: list[Row] = [_parse(line) for line in whole.splitlines()]

    def add(self, row: Row) -> None:
        """Keep a row, in memory and in the file."""
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": row.KIND, **dataclasses.asdict(row)}) + "\n")

    def quality(self, rivals: Iterable[Rival], weights: str) -> list[QualityRow]:
        """Return the videos of these very rivals with these weights."""
        wanted = {(rival.method, rival.setting, rival.digest, weights) for rival in rivals}
        return [row for row in self.rows if isinstance(row, QualityRow) and _identity(row) in wanted]

    def times(self, rivals: Iterable[Rival], weights: str) -> list[TimeRow]:
        """Return the timed runs of these very rivals with these weights."""
        wanted = {(rival.method, rival.setting, rival.digest, weights) for rival in rivals}
        return [row for row in self.rows if isinstance(row, TimeRow) and _identity(row) in wanted]

    def facts(self, weights: str, samples: list[list[Any]]) -> FactsRow | None:
        """Return what was calibrated on these samples with these weights, None if nothing was."""
        known = [row for row in self.rows if isinstance(row, FactsRow)]
        return next((row for row in known if row.weights == weights and row.samples == samples), None)


def _identity(row: QualityRow | TimeRow) -> tuple[str, str, str, str]:
    return row.method, row.setting, row.recipe, row.weights


def _parse(line: str) -> Row:
    data = json.loads(line)
    return _KINDS[data.pop("kind")](**data)
