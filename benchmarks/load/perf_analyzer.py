"""Triton's own perf_analyzer as a child process, and what it measured."""

from __future__ import annotations

import csv
import json
import random
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.load.arrivals import Mix, at_once

_ENTRIES = 64  # requests in its input file, which it sends in turn
_TIMEOUT_S = 3600


class PerfAnalyzerError(ValueError):
    """perf_analyzer is missing or gave up; the message has its own words."""


@dataclass(frozen=True)
class Load:
    """What it drives a server with.

    Attributes
    ----------
    model : str
    mix : str
        Budgets, as `Mix.parse` reads them.
    kind : {"concurrency", "rate"}
    value : float
        Requests in flight, or Poisson arrivals a second.
    count : int
        Requests of a measurement.
    """

    model: str
    mix: str
    kind: str
    value: float
    count: int


class Point(NamedTuple):
    """One measurement; milliseconds, and requests a second."""

    model: str
    kind: str
    value: float
    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


class PerfAnalyzer:
    """Runs the binary.

    Parameters
    ----------
    executable : Path

    Raises
    ------
    PerfAnalyzerError
        If it is not there.
    """

    def __init__(self, executable: Path) -> None:
        if not executable.is_file():
            raise PerfAnalyzerError(f"{executable} is not there: scripts/install_perf_analyzer.sh installs it")
        self._executable = executable

    def measure(self, url: str, load: Load, folder: Path) -> Point:
        """Measure one load of the server at `url` (gRPC, host and port); its files go to `folder`.

        Raises
        ------
        PerfAnalyzerError
            If it ends without a figure, as it does at the first error that the server answers.
        """
        inputs, found = folder / "inputs.json", folder / "found.csv"
        inputs.write_text(json.dumps({"data": input_data(load.mix)}), encoding="utf-8")
        found.unlink(missing_ok=True)
        command = [str(self._executable), *arguments(url, load, inputs, found)]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        if run.returncode or not found.is_file():
            said = "\n".join((run.stdout + run.stderr).splitlines()[-15:])
            raise PerfAnalyzerError(f"perf_analyzer gave up on {load.model} at {load.kind} {load.value:g}:\n{said}")
        return read_point(load, found.read_text(encoding="utf-8"))


def input_data(mix: str) -> list[dict[str, Any]]:
    """Return its ``--input-data``: without one, it fills optional inputs with random numbers."""
    asks = at_once(Mix.parse(mix), _ENTRIES, seed=0)
    random.Random(0).shuffle(asks)  # noqa: S311 - no secret
    return [{"prompt": [ask.prompt], "budget": [ask.budget], "seed": [ask.seed]} for ask in asks]


def arguments(url: str, load: Load, inputs: Path, found: Path) -> list[str]:
    """Return its command line.

    Windows of a time count too few of requests that take seconds, so windows are of a number of requests; and what it
    calls unstable is written all the same (``-s``), or it would end without a figure.
    """
    range_ = f"{load.value:g}"
    driven = {
        "concurrency": ["--concurrency-range", range_],
        "rate": ["--request-rate-range", range_, "--request-distribution", "poisson"],
    }[load.kind]
    windows = ["--measurement-mode", "count_windows", "--measurement-request-count", str(load.count)]
    return [
        *("-m", load.model, "-u", url, "-i", "grpc", "-b", "1", "--async", "--input-data", str(inputs)),
        *(*driven, *windows, "-s", "999", "-r", "4", "-f", str(found), "--percentile", "95"),
    ]


def read_point(load: Load, text: str) -> Point:
    """Read its CSV; latencies there are in microseconds."""
    (row,) = list(csv.DictReader(text.splitlines()))
    latencies_ms = [float(row[f"{name} latency"]) / 1e3 for name in ("p50", "p95", "p99")]
    return Point(load.model, load.kind, load.value, float(row["Inferences/Second"]), *latencies_ms)


def show_points(points: Sequence[Point], console: Console) -> None:
    """Print a table."""
    table = Table("load", "model", "requests/s", "p50 (ms)", "p95 (ms)", "p99 (ms)")
    for point in points:
        figures = [f"{value:.4g}" for value in (point.per_s, point.p50_ms, point.p95_ms, point.p99_ms)]
        table.add_row(f"{point.kind} {point.value:g}", point.model, *figures)
    console.print(table)
