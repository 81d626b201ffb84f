"""Plans on schedules of other lengths: one that was calibrated at T steps, used at T' by position.

``python -m benchmarks.paper temporal MODEL_DIR ... [--steps 30,40,60,100]``. At each length, and the same shares of
computed steps: the plan that is calibrated there, the one of the model's default number of steps, mapped, and uniform
skipping. The paper scales a parameter of the sampling schedule instead (0.5 to 1.5), at one length. Size and number of
frames are the model's own: a family that makes one size only has no other to go to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from benchmarks.models import OpenModel, open_folders
from benchmarks.paper import options
from benchmarks.paper.calibrations import Calibrations, draw_samples, read_pool
from benchmarks.paper.evaluations import Evaluations
from benchmarks.paper.mapping import map_steps
from benchmarks.paper.trials import Case, Report, Trial
from lemica_planner import PlanEntry, Sample, uniform_steps

__all__ = ["Draw", "temporal", "transferred"]

Draw = tuple[Sample, ...]
OWN, MAPPED, UNIFORM = "own", "mapped", "uniform"


def temporal(
    model_dirs: options.ModelDirs,
    *,
    steps: Annotated[str, typer.Option(help="Lengths of the schedules to go to.")] = "30,40,60,100",
    samples: options.Samples = 2,
    draws: options.Draws = 3,
    pool: options.Pool = options.POOL_FILE,
    span_share: options.SpanShare = options.SPAN_SHARE,
    workers: options.Workers = 0,
    eager: options.Eager = False,
    prompts: options.Prompts = options.HELD_OUT_FILE,
    count: options.Count = None,
    work: options.Work = options.WORK_FOLDER,
    output: options.Output = None,
) -> None:
    """Take a plan to schedules of other lengths."""
    with options.refusals():
        used, drawn = options.held_out(prompts, count), draw_samples(read_pool(pool), samples, draws)
        models = open_folders(model_dirs, eager=eager)
        calibrations = Calibrations(work, span_share, workers, eager=eager)
        calibrated = {"calibration_samples": samples, "draws": draws, "span_share": span_share}
        report = Report("temporal", options.facts(models, used, **calibrated))
        for opened in models:
            info = opened.model.info
            size = f"{info.num_frames} frames of {info.width} x {info.height}"
            report.notes.append(f"{opened.name} makes {size} only, so no other size is tried")
            for length in options.numbers(steps):
                trial = make_trial(opened, length, calibrations, drawn)
                report.add(trial, used, Evaluations(work / "evaluations.jsonl"))
        report.finish(output)


def make_trial(opened: OpenModel, length: int, calibrations: Calibrations, draws: Sequence[Draw]) -> Trial:
    """Return the trial of one length."""
    there = opened.with_defaults(num_steps=length)
    sources = [calibrations.entries(opened, draw) for draw in draws]
    title = f"{opened.name}, plan of T = {opened.num_steps} at T = {length}"
    return transferred(there, sources, title=title, method=MAPPED, calibrations=calibrations, draws=draws)


def transferred(
    there: OpenModel,
    sources: Sequence[Mapping[str, PlanEntry]],
    *,
    title: str,
    method: str,
    calibrations: Calibrations,
    draws: Sequence[Draw],
) -> Trial:
    """Return the trial of a plan from elsewhere, taken over by position, against the setting's own and uniform ones.

    Parameters
    ----------
    there : OpenModel
        The setting that the plan is used in.
    sources : sequence of mapping of str to PlanEntry
        For each draw the plan from elsewhere, by the name of the budget.
    title, method : str
        What the tables call the setting and the plan.
    calibrations, draws
        Make the setting's own plans, one a draw.
    """
    own = [calibrations.entries(there, draw) for draw in draws]
    cases = []
    for budget, name in calibrations.budgets(there.num_steps).items():
        paths = {
            method: [map_steps(source[name].steps, there.num_steps, budget) for source in sources],
            OWN: [plan[name].steps for plan in own],
            UNIFORM: [uniform_steps(there.num_steps, budget)],
        }
        cases += [Case(called, budget, tuple(map(PlanEntry, found))) for called, found in paths.items()]
    return Trial(there, title, cases, [(method, OWN), (method, UNIFORM)])
