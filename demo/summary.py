"""Turns the measurements into the rows of the table: medians, speed-ups, and the speed-up that was possible."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean, median

from demo.metrics import Quality
from demo.records import FULL, Clip, Measurement, Record

MOST_OF_IDEAL = 1.05  # what noise of a quiet machine can add to a speed-up that reaches the ideal
MOST_SPREAD = 0.5  # all `full` requests do the same work


@dataclass(frozen=True)
class Row:
    """One budget.

    Attributes
    ----------
    budget : str
    forwards : int
        Computed steps (B): how often the transformer runs for each guidance branch.
    steps : tuple of int
        Which.
    seconds : float
        Median of the requests.
    speedup : float
        Median of the ratios between neighbours: each request against the `full` one of its prompt and round. What
        slows the machine for a while slows both, so this stands where a ratio of the medians does not.
    ideal_speedup : float
        ``(T f + c) / (B f + c)``: what reuse that costs nothing would give.
    predicted_error : float or None
    quality : Quality
        Means over the prompts.
    """

    budget: str
    forwards: int
    steps: tuple[int, ...]
    seconds: float
    speedup: float
    ideal_speedup: float
    predicted_error: float | None
    quality: Quality

    @property
    def share_of_ideal(self) -> float:
        """The speed-up as a part of the ideal one."""
        return self.speedup / self.ideal_speedup


@dataclass(frozen=True)
class Summary:
    """The table and what it rests on.

    Attributes
    ----------
    rows : tuple of Row
        `full` first, then from most to fewest computed steps.
    num_steps : int
        T.
    step_ms : float
        f: median time of a computed step, from the `full` requests.
    other_ms : float
        c: median of all that is not denoising (text, decoding, transport), from the `full` requests.
    full_spread : float
        Longest less shortest `full` request, as a part of their median.
    """

    rows: tuple[Row, ...]
    num_steps: int
    step_ms: float
    other_ms: float
    full_spread: float

    @property
    def most_of_ideal(self) -> float:
        """The largest `Row.share_of_ideal`."""
        return max(row.share_of_ideal for row in self.rows)


def summarise(record: Record) -> Summary:
    """Compute the table of a run.

    Raises
    ------
    ValueError
        If there is no `full` request to compare with.
    """
    full = _of_budget(record.measurements, FULL)
    if not full:
        raise ValueError("A summary needs requests with the budget `full` to compare the others with; got none.")
    num_steps = full[0].num_steps
    step_ms = median(shot.denoise_ms / shot.num_steps for shot in full)
    other_ms = median(shot.seconds * 1e3 - shot.denoise_ms for shot in full)

    def ideal(forwards: int) -> float:
        return (num_steps * step_ms + other_ms) / (forwards * step_ms + other_ms)

    budgets = dict.fromkeys(shot.budget for shot in record.measurements)
    rows = [_row(record, budget, ideal) for budget in budgets]
    rows.sort(key=lambda row: (row.budget != FULL, -row.forwards))
    times = [shot.seconds for shot in full]
    return Summary(tuple(rows), num_steps, step_ms, other_ms, (max(times) - min(times)) / median(times))


def _row(record: Record, budget: str, ideal: Callable[[int], float]) -> Row:
    shots = _of_budget(record.measurements, budget)
    full_seconds = {_pair(shot): shot.seconds for shot in _of_budget(record.measurements, FULL)}
    forwards = len(shots[0].computed_steps)
    return Row(
        budget=budget,
        forwards=forwards,
        steps=shots[0].computed_steps,
        seconds=median(shot.seconds for shot in shots),
        speedup=median(full_seconds[_pair(shot)] / shot.seconds for shot in shots),
        ideal_speedup=ideal(forwards),
        predicted_error=shots[0].predicted_error,
        quality=_mean_quality(clip for clip in record.clips if clip.budget == budget),
    )


def _of_budget(measurements: Iterable[Measurement], budget: str) -> list[Measurement]:
    return [shot for shot in measurements if shot.budget == budget]


def _pair(shot: Measurement) -> tuple[str, int, int]:
    return shot.prompt, shot.seed, shot.repeat


def _mean_quality(clips: Iterable[Clip]) -> Quality:
    qualities = [clip.quality for clip in clips]
    return Quality(
        lpips=fmean(quality.lpips for quality in qualities),
        ssim=fmean(quality.ssim for quality in qualities),
        psnr=fmean(quality.psnr for quality in qualities),
    )
