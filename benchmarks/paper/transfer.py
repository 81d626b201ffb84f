"""Plans on other models: one that was calibrated on model A, used on model B.

``python -m benchmarks.paper transfer MODEL_DIR_A MODEL_DIR_B``, in both directions, against B's own plan and uniform
skipping; where the numbers of steps differ, by position. ``--guidance-scale G`` adds each folder once more with that
guidance, so that one folder is enough. Folders with the same weights and another sampler are two models as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Annotated

import typer

from benchmarks.models import OpenModel, open_folders
from benchmarks.paper import options
from benchmarks.paper.calibrations import Calibrations, draw_samples, read_pool
from benchmarks.paper.evaluations import Evaluations
from benchmarks.paper.temporal import transferred
from benchmarks.paper.trials import Report

__all__ = ["transfer"]


def transfer(
    model_dirs: options.ModelDirs,
    *,
    guidance_scale: Annotated[
        list[float] | None, typer.Option(min=0, help="Each folder with this guidance, too; may be repeated.")
    ] = None,
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
    """Take a plan to other models, or to other guidance."""
    with options.refusals():
        used, drawn = options.held_out(prompts, count), draw_samples(read_pool(pool), samples, draws)
        models = open_folders(model_dirs, eager=eager)
        settings = settings_of(models, guidance_scale or ())
        calibrated = {"calibration_samples": samples, "draws": draws, "span_share": span_share}
        report = Report("transfer", options.facts(models, used, **calibrated))
        calibrations = Calibrations(work, span_share, workers, eager=eager)
        for here, there in permutations(settings, 2):
            sources = [calibrations.entries(here, draw) for draw in drawn]
            title = f"plan of {label(here)} on {label(there)}"
            method = f"of {label(here)}"
            trial = transferred(there, sources, title=title, method=method, calibrations=calibrations, draws=drawn)
            report.add(trial, used, Evaluations(work / "evaluations.jsonl"))
        report.finish(output)


def settings_of(models: Sequence[OpenModel], guidance_scales: Sequence[float]) -> list[OpenModel]:
    """Return every model as it is, and with every guidance; each setting once.

    Raises
    ------
    typer.BadParameter
        If that is one setting only.
    """
    every = [*models, *(opened.with_defaults(guidance_scale=scale) for scale in guidance_scales for opened in models)]
    settings = list({opened.key: opened for opened in reversed(every)}.values())[::-1]
    if len(settings) < 2:
        raise typer.BadParameter(
            "a plan goes from one model to another: give a second model folder, or --guidance-scale for the same "
            "weights under other guidance"
        )
    return settings


def label(opened: OpenModel) -> str:
    """Return what the tables call a setting."""
    return f"{opened.name} (T = {opened.num_steps}, guidance {opened.guidance_scale:g})"
