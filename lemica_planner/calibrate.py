"""Measure an error graph by replaying cached segments (arXiv 2511.00090, section 3).

For every sample the trajectory runs once in full; then every segment (i, j) is replayed alone: step i is computed,
i+1..j-1 reuse it, j and all later steps are computed, and the final latents are compared with the full run's. Only
the steps from j on cost forwards, because a replay starts from what the full run stored at step i. All edges that end
at one step share that suffix and run as rows of one batch.

Knows nothing about models: a `Replayer`, which the serving engine implements, does the running.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lemica_planner.errors import CalibrationError
from lemica_planner.graph import ErrorGraph
from lemica_planner.journal import Journal
from lemica_planner.measuring import LocalRunner, Measurer, Meter, ProgressCallback, Runner
from lemica_planner.provenance import Provenance, Sample, describe_samples, tool_version
from lemica_planner.replayer import Replayer, Segment
from lemica_planner.switches import may_look_back, may_skip

__all__ = ["calibrate"]


def calibrate(
    replayer: Replayer,
    samples: Sequence[Sample],
    *,
    max_span: int,
    journal: Path,
    operator: str = "residual",
    progress: ProgressCallback | None = None,
    runner: Runner | None = None,
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
        Append-only file of finished work; it may exist already, also from a run with other samples or spans.
    operator : str
        What fills in skipped steps, one of ``replayer.operators()``. One that looks back is measured with the steps
        right before each edge as its history, although a path of the graph may have computed other ones.
    progress : callable, optional
        Called as ``progress(done, total)``, in forwards of one row, at the start and whenever some are done. Both
        count what this call has to do, so ``elapsed / done * (total - done)`` estimates the time that is left.
    runner : Runner, optional
        What runs the replays, and is closed at the end; by default this process, one sample after the other.

    Returns
    -------
    ErrorGraph
        With the errors of each sample, and the replayer's provenance marked as calibrated.

    Raises
    ------
    CalibrationError
        If there are no samples, `max_span` is below 2, or the replayer returns impossible errors.
    JournalError
        If `journal` is of another model, or of other parameters.

    Notes
    -----
    A sample costs T forwards for its trajectory and T - j for each edge that ends at j; at T = 50 and max_span = 8
    that is 145 full generations.
    """
    samples = [Sample(*sample) for sample in samples]
    if not samples or max_span < 2:
        raise CalibrationError(f"give at least one sample and max_span >= 2; got {len(samples)} and {max_span}")
    looks_back = _looks_back(replayer, operator)
    provenance = replayer.provenance()
    steps = provenance.num_inference_steps
    switches = replayer.switches()
    segments = [
        Segment(start, end, operator, _history(start, looks_back, switches))
        for end in range(2, steps)
        for start in range(max(0, end - max_span), end - 1)
        if may_skip(start, end, switches)
    ]
    meter = Meter(steps, progress)
    runner = runner or LocalRunner(replayer, keep=1)
    with Journal(journal, provenance) as records, Measurer(runner, records, meter) as measurer:
        wanted = dict.fromkeys(samples, segments)
        measurer.measure("error", wanted)
        errors = np.full((len(samples), steps, steps), np.inf)
        errors[:, np.arange(steps - 1), np.arange(1, steps)] = 0
        for number, sample in enumerate(samples):
            for segment in segments:
                errors[number, segment.start, segment.end] = measurer.value(sample, "error", segment)
    measured = replace(provenance, operator=operator)
    return ErrorGraph(errors.mean(axis=0), errors.astype(np.float32), calibrated(measured, samples, max_span), samples)


def _history(start: int, looks_back: int, switches: Collection[int]) -> tuple[int, ...]:
    before = range(max(0, start - looks_back), start)
    return tuple(step for step in before if may_look_back(step, start, switches))


def _looks_back(replayer: Replayer, operator: str) -> int:
    known = replayer.operators()
    if operator not in known:
        raise CalibrationError(f"the replayer has no operator {operator!r}; it has {', '.join(sorted(known))}")
    return known[operator].looks_back


def calibrated(provenance: Provenance, samples: Sequence[Sample], max_span: int) -> Provenance:
    """Return the provenance of errors that were measured on `samples`."""
    calibration = describe_samples(samples, max_span)
    return replace(provenance, calibration=calibration, calibrated=True, tool_version=tool_version())
