"""Measure an error graph by replaying cached segments (arXiv 2511.00090, section 3).

For every sample the trajectory runs once in full; then every segment (i, j) is replayed alone: step i is computed,
i+1..j-1 reuse it, j and all later steps are computed, and the final latents are compared with the full run's. Only
the steps from j on cost forwards, because a replay starts from what the full run stored at step i. All edges that end
at one step share that suffix and run as rows of one batch.

Knows nothing about models: a `Replayer`, which the serving engine implements, does the running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lemica_planner.errors import CalibrationError
from lemica_planner.graph import ErrorGraph
from lemica_planner.journal import Journal, Unit
from lemica_planner.provenance import Provenance, Sample, describe_samples, tool_version

__all__ = ["ReplaySession", "Replayer", "Sample", "calibrate"]

Edge = tuple[int, int]
ProgressCallback = Callable[[int, int], None]


class ReplaySession(Protocol):
    """One sample's stored trajectory, ready to be replayed."""

    def errors(self, edges: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
        """Return the mean absolute difference of the final latents for each edge, shape (len(edges),).

        Each edge (i, j) is replayed alone. The edges of one call share their end step j, so that their steps from j
        on can run as rows of one batch.
        """
        ...

    def close(self) -> None:
        """Drop the stored trajectory."""
        ...


class Replayer(Protocol):
    """Runs trajectories with the reuse operator that will be served."""

    def provenance(self) -> Provenance:
        """Return what the errors will be valid for."""
        ...

    def open(self, sample: Sample) -> ReplaySession:
        """Run the full trajectory of `sample` once, T forwards, and return it for replays."""
        ...


def calibrate(
    replayer: Replayer,
    samples: Sequence[Sample],
    *,
    max_span: int,
    journal: Path,
    progress: ProgressCallback | None = None,
) -> ErrorGraph:
    """Measure the error of every edge up to `max_span`, averaged over `samples`.

    Interrupted at any point, the same call goes on where it stopped and ends with the same graph.

    Parameters
    ----------
    replayer : Replayer
        Runs the model.
    samples : sequence of Sample
        What to measure on. The paper sees the errors settle from about 20 samples on (table 2).
    max_span : int
        Longest allowed edge j - i, at least 2. More gives faster plans to choose from and takes longer.
    journal : Path
        Append-only file of finished work; it may exist already, but only from the same run.
    progress : callable, optional
        Called as ``progress(done, total)``, in forwards of one row, at the start and whenever some are done. Both
        count what this call has to do, so ``elapsed / done * (total - done)`` estimates the time that is left.

    Returns
    -------
    ErrorGraph
        With the errors of each sample, and the replayer's provenance marked as calibrated.

    Raises
    ------
    CalibrationError
        If there are no samples, `max_span` is below 2, or the replayer returns impossible errors.
    JournalError
        If `journal` is of another run.

    Notes
    -----
    A sample costs T forwards for its trajectory and T - j for each edge that ends at j; at T = 50 and max_span = 8
    that is 145 full generations.
    """
    samples = [Sample(*sample) for sample in samples]
    if not samples or max_span < 2:
        raise CalibrationError(f"give at least one sample and max_span >= 2; got {len(samples)} and {max_span}")
    provenance = replayer.provenance()
    steps = provenance.num_inference_steps
    sizes = {(sample, end): len(_edges(end, max_span)) for sample in range(len(samples)) for end in range(2, steps)}
    run = {"provenance": provenance.to_dict(), "samples": [list(sample) for sample in samples], "max_span": max_span}
    with Journal(journal, run, sizes) as records:
        todo = [unit for unit in sizes if unit not in records.units]
        meter = _Meter(steps, max_span, todo, progress)
        for number in sorted({number for number, _ in todo}):
            with closing(replayer.open(samples[number])) as session:
                meter.opened()
                for end in (end for at, end in todo if at == number):
                    edges = _edges(end, max_span)
                    records.record((number, end), _valid(session.errors(edges), edges, samples[number]))
                    meter.replayed(end, len(edges))
    return _graph(records.units, provenance, samples, max_span)


class _Meter:
    """Counts the forwards of this call, and reports them."""

    def __init__(self, steps: int, max_span: int, todo: Iterable[Unit], callback: ProgressCallback | None) -> None:
        units = list(todo)
        self._steps = steps
        self._callback = callback or (lambda done, total: None)
        self._done = 0
        opened = len({sample for sample, _ in units})
        self._total = opened * steps + sum((steps - end) * len(_edges(end, max_span)) for _, end in units)
        self._callback(0, self._total)

    def opened(self) -> None:
        self._add(self._steps)

    def replayed(self, end: int, rows: int) -> None:
        self._add((self._steps - end) * rows)

    def _add(self, forwards: int) -> None:
        self._done += forwards
        self._callback(self._done, self._total)


def _edges(end: int, max_span: int) -> list[Edge]:
    """Return the edges to measure that end at `end`; the direct one reuses nothing."""
    return [(start, end) for start in range(max(0, end - max_span), end - 1)]


def _valid(errors: Any, edges: Sequence[Edge], sample: Sample) -> list[float]:
    values = np.asarray(errors, np.float64)
    if values.shape != (len(edges),) or not np.all(np.isfinite(values) & (values >= 0)):
        raise CalibrationError(
            f"the replayer must return {len(edges)} finite errors >= 0 for the edges {list(edges)} of {sample}; "
            f"got {values.tolist()}; look for NaN or overflow in the model's latents"
        )
    return [float(value) for value in values]


def _graph(
    units: dict[Unit, list[float]], provenance: Provenance, samples: Sequence[Sample], max_span: int
) -> ErrorGraph:
    steps = provenance.num_inference_steps
    errors = np.full((len(samples), steps, steps), np.inf)
    errors[:, np.arange(steps - 1), np.arange(1, steps)] = 0
    for (number, end), values in units.items():
        for (start, _), value in zip(_edges(end, max_span), values, strict=True):
            errors[number, start, end] = value
    measured = replace(
        provenance,
        calibration=describe_samples(samples, max_span),
        calibrated=True,
        tool_version=tool_version(),
    )
    return ErrorGraph(errors.mean(axis=0), errors.astype(np.float32), measured, samples)
