"""The journal of a comparison of ways: append-only JSON lines, so that an interrupted run can go on.

The first line says what was compared with what. Every other line is one way on one sample. Several runs with other
samplers, steps, operators or costs may share a journal; its rows are then one comparison.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lemica_planner.errors import JournalError
from lemica_planner.provenance import Sample
from lemica_planner.samplers import Way

__all__ = ["FORMAT", "Measured", "WayJournal"]

FORMAT = "lemica-steps-1"
Measured = Mapping[str, Mapping[str, float]]  # by reference, by measure


class WayJournal:
    """What was measured of which way on which sample; a context manager that owns the open file.

    Parameters
    ----------
    path : Path
    stated : mapping
        What the rows are valid for, as JSON values.

    Raises
    ------
    JournalError
        If the file is of another comparison, or damaged other than by a torn last line.
    """

    def __init__(self, path: Path, stated: Mapping[str, Any]) -> None:
        self._path = path
        self._header = json.dumps(stated, sort_keys=True)
        self.ways: dict[str, Way] = {}
        self._rows: dict[tuple[str, Sample], Measured] = {}
        self._file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError as error:
            self._file.close()
            raise JournalError(f"{path} is in use by another run; wait for it, or stop it") from error
        except BaseException:
            self._file.close()
            raise

    def get(self, way: Way, sample: Sample) -> Measured | None:
        """Return what was measured, None if nothing was."""
        return self._rows.get((way.key, sample))

    def record(self, way: Way, sample: Sample, values: Measured) -> None:
        """Add a row; it is on disk when this returns."""
        self._write(json.dumps({"way": way.to_dict(), "sample": sample.to_list(), "values": values}))
        self._keep(way, sample, values)

    def __enter__(self) -> Self:
        """Return the journal."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self._file.close()

    def _keep(self, way: Way, sample: Sample, values: Measured) -> None:
        self.ways[way.key] = way
        self._rows[way.key, sample] = values

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind("\n") + 1]
        self._file.truncate(len(whole.encode()))  # a line without an end was torn by a crash
        header, *lines = whole.splitlines() or [self._header]
        if header != self._header:
            raise JournalError(f"{self._path} is the journal of another comparison; give another path, or remove it")
        if not whole:
            self._write(self._header)
        for number, line in enumerate(lines, start=2):
            self._read_line(line, number)

    def _read_line(self, line: str, number: int) -> None:
        try:
            row = json.loads(line)
            self._keep(Way.from_dict(row["way"]), Sample(*row["sample"]), row["values"])
        except (ValueError, KeyError, TypeError) as error:
            raise JournalError(
                f"{self._path}, line {number} is damaged; remove that line to measure it again"
            ) from error
