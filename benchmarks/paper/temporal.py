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

from benchmarks.models import OpenModel, open_folder
from benchmarks.paper import options
from benchmarks.paper.calibrations import Calibrations, read_pool
from benchmarks.paper.evaluations import Evaluations
from benchmarks.paper.mapping import map_steps
from benchmarks.paper.trials import Case, Report, Trial
from lemica_planner import PlanEntry, Sample, uniform_steps

__all__ = ["temporal", "transferred"]

OWN, MAPPED, UNIFORM = "own", "mapped", "uniform"


def temporal(
    model_dirs: options.ModelDirs,
    *,
    steps: Annotated[str, typer.Option(help="Lengths of the schedules to go to.")] = "30,40,60,100",
    samples: options.Samples = 2,
    pool: options.Pool = options.POOL_FILE,
    span_share: options.SpanShare = options.SPAN_SHARE,
    workers: options.Workers = 0,
    prompts: options.Prompts = options.HELD_OUT_FILE,
    count: options.Count = None,
    work: options.Work = options.WORK_FOLDER,
    output: options.Output = None,
) -> None:
    """Take a plan to schedules of other lengths."""
    with options.refusals():
        used, chosen = options.held_out(prompts, count), read_pool(pool)[:samples]
        models = [open_folder(folder) for folder in model_dirs]
        calibrations = Calibrations(work, span_share, workers)
        report = Report("temporal", options.facts(models, used, calibration_samples=len(chosen), span_share=span_share))
        for opened in models:
            info = opened.model.info
            size = f"{info.num_frames} frames of {info.width} x {info.height}"
            report.notes.append(f"{opened.name} makes {size} only, so no other size is tried")
            for length in options.numbers(steps):
                trial = make_trial(opened, length, calibrations, chosen)
                report.add(trial, used, Evaluations(work / "evaluations.jsonl"))
        report.finish(output)


def make_trial(opened: OpenModel, length: int, calibrations: Calibrations, samples: Sequence[Sample]) -> Trial:
    """Return the trial of one length."""
    there = opened.with_defaults(num_steps=length)
    source = calibrations.entries(opened, samples)
    title = f"{opened.name}, plan of T = {opened.num_steps} at T = {length}"
    return transferred(there, source, title=title, method=MAPPED, calibrations=calibrations, samples=samples)


def transferred(
    there: OpenModel,
    source: Mapping[str, PlanEntry],
    *,
    title: str,
    method: str,
    calibrations: Calibrations,
    samples: Sequence[Sample],
) -> Trial:
    """Return the trial of a plan from elsewhere, taken over by position, against the setting's own and uniform ones.

    Parameters
    ----------
    there : OpenModel
        The setting that the plan is used in.
    source : mapping of str to PlanEntry
        The plan from elsewhere, by the name of the budget.
    title, method : str
        What the tables call the setting and the plan.
    calibrations, samples
        Make the setting's own plan.
    """
    own = calibrations.entries(there, samples)
    cases = []
    for budget, name in calibrations.budgets(there.num_steps).items():
        steps = {
            method: map_steps(source[name].steps, there.num_steps, budget),
            OWN: own[name].steps,
            UNIFORM: uniform_steps(there.num_steps, budget),
        }
        cases += [Case(name_of, budget, (PlanEntry(path),)) for name_of, path in steps.items()]
    return Trial(there, title, cases, [(method, OWN), (method, UNIFORM)])
