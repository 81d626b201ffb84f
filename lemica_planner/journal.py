"""The journal of a calibration: append-only JSON lines, so that an interrupted run can go on.

The first line identifies the run. Every other line is one finished unit of work: the errors of all edges of one
sample that end at one step. A last line without an end was torn by a crash and is dropped.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lemica_planner.errors import JournalError

Unit = tuple[int, int]  # number of the sample, end step
_FORMAT = "lemica-calibration-1"


class Journal:
    """A calibration's finished units, in memory and on disk; a context manager that owns the open file.

    Parameters
    ----------
    path : Path
        File to go on with, or to begin.
    run : mapping
        What identifies the run, as JSON values.
    sizes : mapping of Unit to int
        Number of edges of every unit that the run consists of.

    Raises
    ------
    JournalError
        If the file is of another run (naming what differs), or damaged other than by a torn last line.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], sizes: Mapping[Unit, int]) -> None:
        self._path = path
        self._sizes = sizes
        self._header = _line({"format": _FORMAT, **run})
        self.units: dict[Unit, list[float]] = {}
        self._file = path.open("ab")
        self._lock()
        try:
            size = self._read()
        except BaseException:
            self._file.close()
            raise
        self._file.truncate(size)
        if not size:
            self._write(self._header)

    def _lock(self) -> None:
        """Keep a second run off the file; the lock ends with the process."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise JournalError(f"{self._path} is in use by another calibration; wait for it, or stop it") from error

    def record(self, unit: Unit, errors: list[float]) -> None:
        """Add one finished unit; it is on disk when this returns."""
        self._write(_line({"sample": unit[0], "step": unit[1], "errors": errors}))
        self.units[unit] = errors

    def __enter__(self) -> Self:
        """Return the journal."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> int:
        """Fill `units` from the file and return the size of its whole lines, in bytes."""
        content = self._path.read_bytes() if self._path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if not whole and self._header.startswith(content):
            return 0  # new, empty, or torn within the first line
        lines = whole.splitlines(keepends=True)
        self._check_header(lines[0] if lines else content)
        for number, line in enumerate(lines[1:], start=2):
            self._read_unit(line, number)
        return len(whole)

    def _check_header(self, line: bytes) -> None:
        if line == self._header:
            return
        there, here = _parsed(line), json.loads(self._header)
        if not isinstance(there, dict) or there.get("format") != _FORMAT:
            raise JournalError(f"{self._path} is no calibration journal; give another path")
        differ = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
        shown = "; ".join(_difference(key, there.get(key), here.get(key)) for key in differ)
        raise JournalError(f"{self._path} is the journal of another run ({shown}); give another path, or remove it")

    def _read_unit(self, line: bytes, number: int) -> None:
        match _parsed(line):
            case {"sample": int(sample), "step": int(step), "errors": list(errors)} if len(errors) == self._sizes.get(
                (sample, step)
            ) and all(map(_is_error, errors)):
                self.units[sample, step] = [float(error) for error in errors]
            case _:
                raise JournalError(f"{self._path}, line {number} is damaged; remove that line to measure it again")


def _line(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, sort_keys=True, allow_nan=False) + "\n").encode()


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _is_error(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _difference(key: str, there: object, here: object) -> str:
    """Return what differs; of an object only the keys that do, of a list its length."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
        return "; ".join(_difference(f"{key}.{name}", there.get(name), here.get(name)) for name in keys)
    if isinstance(there, list) and isinstance(here, list) and len(there) + len(here) > 6:
        return f"{key}: {len(there)} there, {len(here)} here, not the same"
    return f"{key}: {there!r} there, {here!r} here"
