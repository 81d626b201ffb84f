"""The command ``lemica-planner steps``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast

import typer

from lemica_planner.atomic import write_text
from lemica_planner.cli_calibrate import SampleOption, SampleSeedOption
from lemica_planner.errors import CalibrationError, PlanFormatError
from lemica_planner.idle_options import refuse_idle, refuse_idle_seed
from lemica_planner.installed import open_replayer, require_known
from lemica_planner.plan_sources import load_plan
from lemica_planner.prompt_sets import SOURCES, load_prompts
from lemica_planner.replayer import Replayer, SamplingReplayer
from lemica_planner.samplers import Sampler, parse_sampler
from lemica_planner.step_search import SearchSpace, own_references, search, stated
from lemica_planner.tables import choice_table
from lemica_planner.terminal import console, interruptible, one_line_errors, progress_bar
from lemica_planner.way_plans import Planning

__all__ = ["FIRST_SEED", "steps_command"]

FIRST_SEED = 500_000  # far from those of calibrations
_SAMPLERS = "own,ddim-trailing,unipc-trailing,dpmsolver++-trailing"
_METRIC = "frames_l2"
_OPERATORS = "residual,residual-linear,residual-fitted,output-linear,noise"


def steps_command(
    *,
    model_dir: Annotated[Path, typer.Argument(help="Model folder: the one with config.pbtxt.")],
    prompts: Annotated[str, typer.Option(help=f"Where the prompts to compare on come from: {SOURCES}.")],
    costs: Annotated[str, typer.Option(help="Forwards to spend, such as 10,17,25.")],
    sample: SampleOption = None,
    sample_seed: SampleSeedOption = 0,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first prompt; the others count on.")] = FIRST_SEED,
    samplers: Annotated[
        str, typer.Option(help="Samplers to run with as many steps as a cost allows, separated by commas.")
    ] = _SAMPLERS,
    cached: Annotated[str, typer.Option(help="Samplers to run with more steps, of which some are skipped.")] = "own",
    steps: Annotated[
        str | None, typer.Option(help="Their numbers of steps, such as 20,30,50; by default the model's own.")
    ] = None,
    operators: Annotated[str, typer.Option(help="What may fill in skipped steps, each for itself.")] = _OPERATORS,
    calibration: Annotated[
        str | None, typer.Option(help="Prompts for fitted operators and --measured, one seed each; not --prompts.")
    ] = None,
    even: Annotated[bool, typer.Option(help="Space computed steps evenly.")] = True,
    measured: Annotated[bool, typer.Option(help="Calibrate plans; takes long.")] = False,
    refine: Annotated[int, typer.Option(min=0, help="Whole paths to try for each calibrated plan.")] = 0,
    reuse_timesteps: Annotated[
        str, typer.Option(help="Samplers to run on the timesteps of plans with held noise.")
    ] = "",
    leaping: Annotated[
        str, typer.Option(help="Samplers whose timesteps a calibration chooses among those of each of STEPS.")
    ] = "",
    plans: Annotated[
        str, typer.Option(help="Plans or graphs of the model's own run that exist already, separated by commas.")
    ] = "",
    converged: Annotated[
        str, typer.Option(help="SAMPLER:STEPS whose video counts as the solution.")
    ] = "dpmsolver++@ddim-linspace:250",
    metric: Annotated[str, typer.Option(help="What calibrated plans keep small.")] = _METRIC,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the comparison goes.")] = Path("steps.json"),
    journal: Annotated[Path | None, typer.Option(help="Finished work; by default OUTPUT.journal.jsonl.")] = None,
    replayer: Annotated[str, typer.Option(help="Which installed replayer runs the model.")] = "lemica",
) -> None:
    """Compare fewer steps of better samplers with more steps of which some are skipped, at the same cost."""
    with one_line_errors():
        refuse_idle_seed(sample_seed, sample, prompts)
        calibrates = measured or bool(leaping)
        has_plans = "--measured or --leaping"
        refuse_idle("--refine", has_plans, is_idle=refine > 0 and not calibrates)
        refuse_idle("--metric", has_plans, is_idle=metric != _METRIC and not calibrates)
        is_fitted = operators != _OPERATORS and "fitted" in operators
        refuse_idle("a fitted operator", "--calibration", is_idle=is_fitted and calibration is None)
        is_held = "noise" in _names(operators)
        refuse_idle("--reuse-timesteps", "noise in --operators", is_idle=bool(reuse_timesteps) and not is_held)
        if calibrates and calibration is None:
            raise CalibrationError("--measured and --leaping need prompts to calibrate on; give --calibration as well")
        require_known(replayer, operators=_names(operators), metric=metric)
        tried = SearchSpace(
            costs=_numbers(costs, "costs"),
            samplers=_samplers(samplers),
            cached=_samplers(cached),
            steps=_numbers(steps, "steps") if steps else (),
            operators=_names(operators),
            even=even,
            measured=measured,
            reuse_timesteps=_samplers(reuse_timesteps),
            leaping=_samplers(leaping),
            plans=tuple(load_plan(source, None) for source in _names(plans)),
        )
        _tell_missing(tried)
        solution = _converged(converged)
        chosen = load_prompts(prompts, sample=sample, seed=sample_seed)
        samples = [prompt.sample(first_seed + number) for number, prompt in enumerate(chosen)]
        opened = _sampling(open_replayer(replayer, model_dir, metric), replayer)
        tried = tried if steps else replace(tried, steps=(opened.provenance().num_inference_steps,))
        references = own_references(opened, *solution)
        record = journal or output.with_name(output.name + ".journal.jsonl")
        planning = _planning(calibration, record, refine)
        with interruptible(record), progress_bar("forward") as progress:
            comparison = search(
                opened, samples, tried, references, planning=planning, journal=record, progress=progress
            )
        known = comparison.to_dict(tried.costs, stated(opened, references))
        write_text(output, json.dumps(known, indent=1) + "\n")
        console.print(choice_table(known["choices"]))
        console.print(f"{len(comparison.ways)} ways on {len(samples)} samples: {output}", soft_wrap=True)


def _tell_missing(tried: SearchSpace) -> None:
    for plan in tried.plans:
        missing = [str(cost) for cost in tried.costs if cost not in plan.entries]
        if missing:
            console.print(f"plan {plan.plan_id} has no budget of {', '.join(missing)}: left out there")


def _sampling(opened: Replayer, name: str) -> SamplingReplayer:
    if not hasattr(opened, "yardstick"):
        raise CalibrationError(f"the replayer {name!r} cannot change its sampler; use one that can, such as lemica")
    return cast(SamplingReplayer, opened)


def _planning(source: str | None, record: Path, refine: int) -> Planning | None:
    """Return what calibrations run on; their journals go into a folder beside the journal."""
    if source is None:
        return None
    folder = record.with_suffix(".calibration")
    folder.mkdir(exist_ok=True)
    return Planning(tuple(prompt.sample(0) for prompt in load_prompts(source)), folder, refine)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _samplers(text: str) -> tuple[Sampler, ...]:
    return tuple(parse_sampler(name) for name in _names(text))


def _numbers(text: str, what: str) -> tuple[int, ...]:
    parts = _names(text)
    if not parts or not all(part.isascii() and part.isdigit() and int(part) >= 2 for part in parts):
        raise PlanFormatError(f"{what} must be numbers of steps from 2 on, separated by commas; got {text!r}")
    return tuple(int(part) for part in parts)


def _converged(text: str) -> tuple[Sampler, int]:
    """Read ``SAMPLER:STEPS``."""
    name, _, number = text.rpartition(":")
    (steps, *_) = _numbers(number, "the converged steps")
    return parse_sampler(name), steps
