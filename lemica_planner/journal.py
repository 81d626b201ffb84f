"""The journal of a calibration: append-only JSON lines, so that an interrupted run can go on.

The first line says what the measurements are valid for. Every other line holds some segments of one sample and what
was measured of them. So a later run with more samples, longer spans or other operators finds here what it shares with
an earlier one. A last line without an end was torn by a crash and is dropped.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from lemica_planner.errors import JournalError
from lemica_planner.plan_entry import PlanEntry
from lemica_planner.provenance import Provenance, Sample
from lemica_planner.replayer import Segment

__all__ = ["Grams", "Journal", "Measure"]

Grams = Mapping[str, NDArray[np.float64]]
Measure = Literal["error", "drift"]
_MEASURES = ("error", "drift")
_FORMAT = "lemica-calibration-2"


class Journal:
    """What a calibration has measured, in memory and on disk; a context manager that owns the open file.

    Parameters
    ----------
    path : Path
        File to go on with, or to begin.
    provenance : Provenance
        What the measurements are valid for.

    Raises
    ------
    JournalError
        If the file is of another run (naming what differs), or damaged other than by a torn last line.
    """

    def __init__(self, path: Path, provenance: Provenance) -> None:
        self._path = path
        self.num_steps = provenance.num_inference_steps
        self._header = _line({"format": _FORMAT, "provenance": provenance.to_dict()})
        self._values: defaultdict[tuple[Sample, Measure], dict[Segment, float]] = defaultdict(dict)
        self._grams: dict[Sample, Grams] = {}
        self._outcomes: dict[tuple[Sample, str], float] = {}
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

    def missing(self, sample: Sample, measure: Measure, segments: Sequence[Segment]) -> list[Segment]:
        """Return those of `segments` that were not measured, in their order."""
        return [segment for segment in segments if segment not in self._values[sample, measure]]

    def measured(self, sample: Sample, measure: Measure) -> Collection[Segment]:
        """Return the segments that were measured."""
        return self._values[sample, measure].keys()

    def value(self, sample: Sample, measure: Measure, segment: Segment) -> float:
        """Return what was measured; KeyError if it was not."""
        return self._values[sample, measure][segment]

    def record(self, sample: Sample, measure: Measure, segments: Sequence[Segment], values: Sequence[float]) -> None:
        """Add measurements; they are on disk when this returns."""
        known = {"measure": measure, "segments": [list(segment) for segment in segments], "values": list(values)}
        self._write(_line({"sample": sample.to_list(), **known}))
        self._keep(sample, measure, segments, values)

    def grams(self, sample: Sample) -> Grams:
        """Return the sample's products of values, those that are known."""
        return self._grams.get(sample, {})

    def record_grams(self, sample: Sample, grams: Grams) -> None:
        """Add the products of a sample's values; they are on disk when this returns."""
        self._write(_line({"sample": sample.to_list(), "grams": {key: gram.tolist() for key, gram in grams.items()}}))
        self._grams[sample] = grams

    def outcome(self, sample: Sample, path: PlanEntry) -> float | None:
        """Return what running the whole path changes in the sample's end result, None if it is not known."""
        return self._outcomes.get((sample, _path_key(path)))

    def paths_run(self, sample: Sample, budget: int) -> int:
        """Return of how many paths of so many computed steps the outcome is known."""
        return sum(of == sample and len(json.loads(key)[0]) == budget for of, key in self._outcomes)

    def record_outcomes(self, sample: Sample, paths: Sequence[PlanEntry], values: Sequence[float]) -> None:
        """Add outcomes; they are on disk when this returns."""
        keys = [_path_key(path) for path in paths]
        self._write(_line({"sample": sample.to_list(), "paths": keys, "values": list(values)}))
        self._outcomes.update(((sample, key), value) for key, value in zip(keys, values, strict=True))

    def __enter__(self) -> Self:
        """Return the journal."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self._file.close()

    def _lock(self) -> None:
        """Keep a second run off the file; the lock ends with the process."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise JournalError(f"{self._path} is in use by another calibration; wait for it, or stop it") from error

    def _keep(self, sample: Sample, measure: Measure, segments: Sequence[Segment], values: Sequence[float]) -> None:
        self._values[sample, measure].update(zip(segments, map(float, values), strict=True))

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> int:
        """Take in the file and return the size of its whole lines, in bytes."""
        content = self._path.read_bytes() if self._path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if not whole and self._header.startswith(content):
            return 0  # new, empty, or torn within the first line
        lines = whole.splitlines(keepends=True)
        self._check_header(lines[0] if lines else content)
        for number, line in enumerate(lines[1:], start=2):
            self._read_line(line, number)
        return len(whole)

    def _check_header(self, line: bytes) -> None:
        if line == self._header:
            return
        there, here = _parsed(line), json.loads(self._header)
        if not isinstance(there, dict) or there.get("format") != _FORMAT:
            raise JournalError(f"{self._path} is no calibration journal of this version; give another path")
        differs = _difference("provenance", there["provenance"], here["provenance"])
        raise JournalError(f"{self._path} is the journal of another run ({differs}); give another path, or remove it")

    def _read_line(self, line: bytes, number: int) -> None:
        match _with_sample(_parsed(line)):
            case {
                "sample": [str(prompt), int(seed), *image],
                "measure": str(measure),
                "segments": list(given),
                "values": list(values),
            }:
                segments = [segment for segment in map(self._segment, given) if segment is not None]
                if measure in _MEASURES and len(segments) == len(given) == len(values) and all(map(_is_error, values)):
                    self._keep(Sample(prompt, seed, *image), measure, segments, values)  # type: ignore[arg-type]
                    return
            case {"sample": [str(prompt), int(seed), *image], "paths": list(keys), "values": list(values)}:
                if len(keys) == len(values) and all(map(_is_error, values)):
                    sample = Sample(prompt, seed, *image)
                    self._outcomes.update(
                        ((sample, str(key)), float(value)) for key, value in zip(keys, values, strict=True)
                    )
                    return
            case {"sample": [str(prompt), int(seed), *image], "grams": dict(grams)}:
                parsed = {key: np.asarray(gram, np.float64) for key, gram in grams.items()}
                if all(gram.shape == (self.num_steps,) * 2 and np.isfinite(gram).all() for gram in parsed.values()):
                    self._grams[Sample(prompt, seed, *image)] = parsed
                    return
        raise JournalError(f"{self._path}, line {number} is damaged; remove that line to measure it again")

    def _segment(self, given: object) -> Segment | None:
        match given:
            case [int(start), int(end), str(operator), list(history), list(weights)] if (
                0 <= start < end < self.num_steps
            ):
                return Segment(start, end, operator, tuple(history), tuple(map(tuple, weights)))
        return None


def _with_sample(parsed: object) -> object:
    """Return a parsed line if its sample has an image's two fields, or none."""
    match parsed:
        case {"sample": [_, _] | [_, _, str(), str()]}:
            return parsed
    return None


def _path_key(path: PlanEntry) -> str:
    """Return what decides a path's outcome, as text."""
    weights = [[step, *weights] for step, weights in path.weights.items()]
    return json.dumps([path.steps, path.operators, weights], separators=(",", ":"))


def _line(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, sort_keys=True, allow_nan=False, separators=(",", ":")) + "\n").encode()


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _is_error(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _difference(key: str, there: object, here: object) -> str:
    """Return what differs; of an object only the keys that do."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
        return "; ".join(_difference(f"{key}.{name}", there.get(name), here.get(name)) for name in keys)
    return f"{key}: {there!r} there, {here!r} here"
