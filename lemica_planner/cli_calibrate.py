"""The command ``lemica-planner calibrate``."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from lemica_planner.calibrate import calibrate
from lemica_planner.cluster import require_ray
from lemica_planner.errors import CalibrationError, PlanFormatError
from lemica_planner.graph import ErrorGraph
from lemica_planner.idle_options import refuse_idle, refuse_idle_seed
from lemica_planner.installed import open_replayer, require_known
from lemica_planner.lazy import calibrate_lazily
from lemica_planner.measuring import Runner
from lemica_planner.operator_graph import OperatorGraph
from lemica_planner.plan import default_names
from lemica_planner.prompt_sets import SOURCES, load_prompts
from lemica_planner.provenance import Sample
from lemica_planner.replayer import Replayer
from lemica_planner.risk import require_risk
from lemica_planner.switches import feasible_range
from lemica_planner.tables import describe_graph
from lemica_planner.terminal import console, interruptible, one_line_errors, progress_bar

__all__ = ["SampleOption", "SampleSeedOption", "calibrate_command"]

SampleOption = Annotated[
    int | None, typer.Option(min=1, help="Draw this many prompts, an equal share of each category. By default all.")
]
SampleSeedOption = Annotated[int, typer.Option(min=0, help="Seed of the draw, and of paper:FOLDER.")]


class Method(StrEnum):
    """How `calibrate` measures."""

    NAIVE = "naive"
    LAZY = "lazy"


def calibrate_command(
    *,
    model_dir: Annotated[Path, typer.Argument(help="Model folder: the one with config.pbtxt.")],
    prompts: Annotated[str, typer.Option(help=f"Where the prompts come from: {SOURCES}.")],
    sample: SampleOption = None,
    sample_seed: SampleSeedOption = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0..N-1 for each prompt.")] = 1,
    max_span: Annotated[
        int, typer.Option(min=2, help="Longest edge j-i. More allows smaller budgets and takes longer.")
    ] = 8,
    method: Annotated[
        Method, typer.Option(help="naive measures every edge; lazy only those that decide which steps are best.")
    ] = Method.LAZY,
    operators: Annotated[
        str, typer.Option(help="What may fill in skipped steps, separated by commas; naive takes one.")
    ] = "residual",
    budgets: Annotated[
        str | None, typer.Option(help="lazy: budgets to be sure of, such as 25,17,10; by default 1/2, 1/3, 1/5 of T.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="What errors measure: latents_l1 (the paper's), latents_l2, or frames_l2.")
    ] = "latents_l1",
    risk: Annotated[
        str, typer.Option(help="lazy: how samples become a weight: mean, quantile:Q, cvar:Q, mean+K.")
    ] = "mean",
    refine: Annotated[
        int, typer.Option(min=0, help="lazy: whole paths to try for each of BUDGETS, for a better true outcome.")
    ] = 0,
    regret: Annotated[
        float,
        typer.Option(min=0, help="lazy: stop with the first 2, 4, 8... samples if more would gain no more than this."),
    ] = 0,
    workers: Annotated[
        int, typer.Option(min=0, help="Run on this many Ray workers; 0 runs in this process.", show_default=False)
    ] = 0,
    ray: Annotated[str | None, typer.Option(help="Address of a running Ray cluster; by default this machine.")] = None,
    worker_gpus: Annotated[float, typer.Option(min=0, help="GPUs that each worker needs.")] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the graph goes.")] = Path("graph.npz"),
    journal: Annotated[Path | None, typer.Option(help="Finished work; by default OUTPUT.journal.jsonl.")] = None,
    replayer: Annotated[str, typer.Option(help="Which installed replayer runs the model.")] = "lemica",
) -> None:
    """Measure what each reuse costs; interrupted, the same command goes on where it stopped."""
    with one_line_errors():
        refuse_idle_seed(sample_seed, sample, prompts)
        refuse_idle("--worker-gpus", "--workers or --ray", is_idle=worker_gpus > 0 and not (workers or ray))
        lazy_only = {"--budgets": budgets is not None, "--risk": risk != "mean"}
        _refuse_unused(method, lazy_only | {"--refine": refine > 0, "--regret": regret > 0})
        names, wanted = _names(operators), None if budgets is None else _numbers(budgets)
        _require_names(method, names, risk)
        require_known(replayer, operators=names, metric=metric)
        if workers or ray:
            require_ray(ray)
        _require_folder(output)
        chosen = load_prompts(prompts, sample=sample, seed=sample_seed)
        samples = [prompt.sample(seed) for prompt in chosen for seed in range(seeds)]
        record = journal or output.with_name(output.name + ".journal.jsonl")
        opened = open_replayer(replayer, model_dir, metric)
        lazily = {"operators": names, "risk": risk, "refine": refine, "regret": regret}
        lazily["budgets"] = wanted or _default_budgets(opened, max_span)
        runner = _runner(partial(open_replayer, replayer, model_dir, metric), samples, workers, ray, worker_gpus)
        with progress_bar("forward") as progress, interruptible(record):
            common = {"max_span": max_span, "journal": record, "progress": progress, "runner": runner}
            graph = _run(method, opened, samples, common, lazily)
        graph.save(output)
        console.print(f"{describe_graph(graph)}: {output}", soft_wrap=True)


def _run(
    method: Method, opened: Replayer, samples: list[Sample], common: dict[str, Any], lazily: dict[str, Any]
) -> ErrorGraph | OperatorGraph:
    if method is Method.LAZY:
        return calibrate_lazily(opened, samples, **common, **lazily)
    return calibrate(opened, samples, operator=lazily["operators"][0], **common)


def _refuse_unused(method: Method, given: dict[str, bool]) -> None:
    unused = [name for name, is_given in given.items() if is_given]
    if method is Method.NAIVE and unused:
        raise CalibrationError(f"--method naive knows no {', '.join(unused)}; leave it out, or use --method lazy")


def _require_names(method: Method, operators: list[str], risk: str) -> None:
    require_risk(risk)
    if method is Method.NAIVE and len(operators) > 1:
        raise CalibrationError("--method naive takes one operator; use --method lazy for several")


def _runner(
    factory: partial[Replayer], samples: list[Sample], workers: int, address: str | None, gpus: float
) -> Runner | None:
    if not workers and address is None:
        return None
    from lemica_planner.ray_runner import RayRunner  # noqa: PLC0415 - only who asks for workers needs Ray

    resources = {"num_cpus": 1, "num_gpus": gpus}
    return RayRunner(factory, samples, workers=workers or len(samples), address=address, resources=resources)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _default_budgets(opened: Replayer, max_span: int) -> list[int]:
    """Return the budgets that get names."""
    num_steps = opened.provenance().num_inference_steps
    feasible = feasible_range(num_steps, max_span, opened.switches())
    return sorted(set(default_names(num_steps, feasible).values()))


def _numbers(text: str) -> list[int]:
    """Read ``25,17,10``."""
    parts = _names(text)
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise PlanFormatError(f"budgets must be numbers of steps, separated by commas; got {text!r}")
    return [int(part) for part in parts]


def _require_folder(output: Path) -> None:
    """Refuse before the long work what would fail after it."""
    if not output.resolve().parent.is_dir():
        raise CalibrationError(f"the folder of {output} does not exist; create it, or give another path")
