"""Table 2 of the paper: how many calibration samples a plan needs.

``python -m benchmarks.paper table2 MODEL_DIR ... --workers 2``. For each number of samples, some draws from the pool;
each draw makes its own plan, and all plans are evaluated on the same held-out prompts. Intervals are over draws and
prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import typer

from benchmarks.models import OpenModel, open_folders
from benchmarks.paper import options
from benchmarks.paper.calibrations import Calibrations, are_disjoint, draw_samples, read_pool
from benchmarks.paper.evaluations import Evaluations
from benchmarks.paper.scores import MEASURES, Row, saturation
from benchmarks.paper.trials import Case, Report, Trial
from lemica_planner import Sample

__all__ = ["table2"]

Draws = Mapping[int, Sequence[tuple[Sample, ...]]]


def table2(
    model_dirs: options.ModelDirs,
    *,
    sizes: Annotated[str, typer.Option(help="Numbers of calibration samples.")] = "1,2,5,10",
    draws: Annotated[int, typer.Option(min=1, help="Draws of each size.")] = 3,
    pool: options.Pool = options.POOL_FILE,
    pool_seeds: options.PoolSeeds = 1,
    span_share: options.SpanShare = options.SPAN_SHARE,
    workers: options.Workers = 0,
    eager: options.Eager = False,
    prompts: options.Prompts = options.HELD_OUT_FILE,
    count: options.Count = None,
    work: options.Work = options.WORK_FOLDER,
    output: options.Output = None,
) -> None:
    """Compare plans by the number of calibration samples, at the named budgets."""
    with options.refusals():
        known, samples = read_pool(pool, pool_seeds), options.held_out(prompts, count)
        drawn = {size: draw_samples(known, size, draws) for size in options.numbers(sizes)}
        models = open_folders(model_dirs, eager=eager)
        calibrations = Calibrations(work, span_share, workers, eager=eager)
        report = Report("table2", options.facts(models, samples, pool=len(known), draws=draws, span_share=span_share))
        report.notes += [describe_draws(drawn)]
        for opened in models:
            trial = make_trial(opened, calibrations, drawn)
            report.add(trial, samples, Evaluations(work / "evaluations.jsonl"))
            report.notes += describe_saturation([row for row in report.rows if row.group == opened.name])
        report.finish(output)


def make_trial(opened: OpenModel, calibrations: Calibrations, drawn: Draws) -> Trial:
    """Calibrate every draw, the small ones first, and return the trial of their plans."""
    plans = {size: [calibrations.entries(opened, draw) for draw in draws] for size, draws in drawn.items()}
    cases = [
        Case(method_of(size), budget, tuple(plan[name] for plan in found))
        for budget, name in calibrations.budgets(opened.num_steps).items()
        for size, found in plans.items()
    ]
    largest = method_of(max(drawn))
    return Trial(opened, opened.name, cases, [(method_of(size), largest) for size in drawn if size != max(drawn)])


def method_of(size: int) -> str:
    """Return what the tables call a number of samples."""
    return f"n = {size}"


def describe_draws(drawn: Draws) -> str:
    """Say which draws share samples."""
    parts = (
        f"n = {size}: {len(draws)} {'disjoint' if are_disjoint(draws) else 'overlapping'}"
        for size, draws in drawn.items()
    )
    return f"draws from the pool: {', '.join(parts)}; a draw holds the smaller ones of its number"


def describe_saturation(rows: Sequence[Row]) -> Iterator[str]:
    """Say for each budget and measure from which size on more samples make no difference that is sure."""
    for budget in dict.fromkeys(row.budget for row in rows):
        sizes = {int(row.method.removeprefix("n = ")): row for row in rows if row.budget == budget}
        found = {measure.title: saturation(sizes, measure) for measure in MEASURES}
        if None not in found.values():
            parts = ", ".join(f"{title} n = {size}" for title, size in found.items())
            yield f"{rows[0].group}, budget {budget}: not told apart from n = {max(sizes)} as worse (95 %) from {parts}"
