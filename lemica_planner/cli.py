"""The command ``lemica-planner``: prompts, calibrate, solve, apply, show, report, export, import."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from tqdm import tqdm

from lemica_planner.atomic import write_text
from lemica_planner.calibrate import calibrate
from lemica_planner.config_writer import apply_plan, read_plan
from lemica_planner.errors import CalibrationError, PlanFormatError, PlannerError, ReplayerNotFoundError
from lemica_planner.graph import ErrorGraph
from lemica_planner.graph_file import load_graph
from lemica_planner.interchange import FORMATS, export_plan, import_plan
from lemica_planner.lazy import calibrate_lazily
from lemica_planner.operator_graph import OperatorGraph
from lemica_planner.plan import CachePlan, default_names
from lemica_planner.prompt_sets import SOURCES, count_categories, load_prompts, to_json_line
from lemica_planner.provenance import Sample
from lemica_planner.published import published_plan
from lemica_planner.replayer import Replayer
from lemica_planner.report import render_report
from lemica_planner.tables import describe_graph, plan_table, provenance_table

__all__ = ["app"]

_GROUP = "lemica_planner.replayers"
_PUBLISHED = "published:"
_ZIP = b"PK"  # how an .npz begins

app = typer.Typer(
    help="Plan which denoising steps of a video diffusion model to compute, and which to reuse (LeMiCa).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_console = Console(highlight=False, markup=False)

_Names = Annotated[
    str | None,
    typer.Option(help="Names such as slow=25,medium=17,fast=10. By default these three: 1/2, 1/3, 1/5 of the steps."),
]
_Graph = Annotated[Path, typer.Argument(help="A graph.npz that `calibrate` wrote.")]
_Source = Annotated[
    str, typer.Argument(help=f"plan.json, graph.npz, config.pbtxt, a model folder, or {_PUBLISHED}MODEL.")
]

_Sample = Annotated[
    int | None, typer.Option(min=1, help="Draw this many prompts, an equal share of each category. By default all.")
]
_SampleSeed = Annotated[int, typer.Option(min=0, help="Seed of the draw, and of paper:FOLDER.")]


class Method(StrEnum):
    """How `calibrate` measures."""

    NAIVE = "naive"
    LAZY = "lazy"


@app.command("calibrate")
def calibrate_command(
    *,
    model_dir: Annotated[Path, typer.Argument(help="Model folder: the one with config.pbtxt.")],
    prompts: Annotated[str, typer.Option(help=f"Where the prompts come from: {SOURCES}.")],
    sample: _Sample = None,
    sample_seed: _SampleSeed = 0,
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
    risk: Annotated[
        str, typer.Option(help="lazy: how samples become a weight: mean, quantile:Q, cvar:Q, mean+K.")
    ] = "mean",
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the graph goes.")] = Path("graph.npz"),
    journal: Annotated[Path | None, typer.Option(help="Finished work; by default OUTPUT.journal.jsonl.")] = None,
    replayer: Annotated[str, typer.Option(help="Which installed replayer runs the model.")] = "lemica",
) -> None:
    """Measure what each reuse costs; interrupted, the same command goes on where it stopped."""
    with _one_line_errors():
        chosen = load_prompts(prompts, sample=sample, seed=sample_seed)
        samples = [Sample(prompt.text, seed) for prompt in chosen for seed in range(seeds)]
        record = journal or output.with_name(output.name + ".journal.jsonl")
        opened = _open_replayer(replayer, model_dir)
        _require_folder(output)
        names = [name.strip() for name in operators.split(",")]
        with _progress() as progress, _interruptible(record):
            common: dict[str, Any] = {"max_span": max_span, "journal": record, "progress": progress}
            graph: ErrorGraph | OperatorGraph
            if method is Method.NAIVE:
                graph = calibrate(opened, samples, operator=operators, **common)
            else:
                wanted = _budgets(budgets, opened.provenance().num_inference_steps)
                graph = calibrate_lazily(opened, samples, operators=names, budgets=wanted, risk=risk, **common)
        graph.save(output)
        _console.print(f"{describe_graph(graph)}: {output}", soft_wrap=True)


@app.command("prompts")
def prompts_command(
    source: Annotated[str, typer.Argument(help=f"Where the prompts come from: {SOURCES}.")],
    sample: _Sample = None,
    sample_seed: _SampleSeed = 0,
) -> None:
    """Print the prompts that `calibrate` would use, with their categories, as a .jsonl that it takes as well."""
    with _one_line_errors():
        chosen = load_prompts(source, sample=sample, seed=sample_seed)
    for prompt in chosen:  # outside, so that a reader that stops, such as `head`, is no bad input
        typer.echo(to_json_line(prompt))
    shares = ", ".join(f"{name or 'no category'}: {size}" for name, size in count_categories(chosen).items())
    typer.echo(f"{len(chosen)} prompts ({shares})", err=True)


@app.command()
def solve(
    graph: _Graph,
    budget: Annotated[
        int | None, typer.Option(help="Only this number of computed steps, not all feasible ones.")
    ] = None,
    names: _Names = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the plan as JSON.")] = None,
) -> None:
    """Choose the computed steps of every budget, and print or write the plan."""
    with _one_line_errors():
        budgets = None if budget is None else [budget]
        plan = CachePlan.from_graph(load_graph(graph), names=_parse_names(names), budgets=budgets)
        if output is None:
            _console.print(plan_table(plan))
        else:
            write_text(output, plan.to_json(pretty=True))
            _console.print(f"plan {plan.plan_id} with {len(plan.entries)} budgets: {output}", soft_wrap=True)


@app.command()
def apply(
    source: _Source,
    config: Annotated[Path, typer.Argument(help="Model folder, or its config.pbtxt.")],
    names: _Names = None,
) -> None:
    """Write the plan of every feasible budget into a model's config.pbtxt."""
    with _one_line_errors():
        plan = _load_plan(source, _parse_names(names))
        target = _config_path(config)
        apply_plan(target, plan)
        _console.print(f"plan {plan.plan_id} with {len(plan.entries)} budgets: {target}", soft_wrap=True)


@app.command()
def show(source: _Source) -> None:
    """Print a plan, or the plan of a graph: per budget the steps, their picture and the predicted error."""
    with _one_line_errors():
        plan = _load_plan(source, None)
        _console.print(provenance_table(plan.provenance))
        _console.print(plan_table(plan))


@app.command()
def report(
    graph: _Graph,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the page goes.")] = Path("report.html"),
    names: _Names = None,
) -> None:
    """Write an HTML page with the error graph, the plans and how they compare with other choices of steps."""
    with _one_line_errors():
        errors = load_graph(graph)
        plan = CachePlan.from_graph(errors, names=_parse_names(names))
        drawn = errors.to_error_graph() if isinstance(errors, OperatorGraph) else errors
        write_text(output, render_report(drawn, plan))
        _console.print(f"report: {output}", soft_wrap=True)


@app.command("export")
def export_command(
    source: _Source,
    *,
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "json",
    budget: Annotated[str | None, typer.Option(help="Only this budget, a name or number; cache-dit needs one.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write a file; by default print.")] = None,
) -> None:
    """Write the steps of a plan as plain lists, or as the configuration of cache-dit."""
    with _one_line_errors():
        text = export_plan(_load_plan(source, None), form, budget)
        if output is None:
            typer.echo(text, nl=False)
        else:
            write_text(output, text)


@app.command("import")
def import_command(
    lists: Annotated[Path, typer.Argument(help="Lists of steps or masks: JSON, or lines such as 0,1,4.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the plan goes.")] = Path("plan.json"),
    origin: Annotated[str | None, typer.Option(help="Where the lists come from; by default the file's name.")] = None,
    model: Annotated[str | None, typer.Option(help="The model that they are for.")] = None,
    names: _Names = None,
) -> None:
    """Make a plan, marked as not calibrated, of lists of steps that were made elsewhere."""
    with _one_line_errors():
        text = _decoded(lists.read_bytes(), lists)
        plan = import_plan(text, source=origin or lists.name, model=model, names=_parse_names(names))
        write_text(output, plan.to_json(pretty=True))
        _console.print(f"plan {plan.plan_id} with {len(plan.entries)} budgets: {output}", soft_wrap=True)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn the errors of bad input into one line and exit code 2; others are bugs and keep their traceback."""
    try:
        yield
    except (PlannerError, OSError) as exc:
        message = " ".join(str(exc).split())
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(2) from exc


@contextmanager
def _interruptible(journal: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as exc:
        typer.echo(f"\ninterrupted; finished work is kept in {journal}: the same command goes on there", err=True)
        raise typer.Exit(130) from exc


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Yield a callback that draws a bar from its first call on; its rate is the mean over all work so far."""
    with ExitStack() as stack:
        bars: list[tqdm[Any]] = []

        def update(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(tqdm(total=total, unit="forward", smoothing=0, dynamic_ncols=True)))
            bars[0].update(done - bars[0].n)

        yield update


def _open_replayer(name: str, model_dir: Path) -> Replayer:
    """Import the replayer of that name, and only that one, and open the model with it."""
    found = {point.name: point for point in metadata.entry_points(group=_GROUP)}
    if name not in found:
        raise ReplayerNotFoundError(
            f"no replayer {name!r} is installed; installed: {', '.join(sorted(found)) or 'none'}; "
            f"a package provides one by an entry point of the group {_GROUP}"
        )
    try:
        factory: Any = found[name].load()
    except (ImportError, AttributeError) as exc:
        raise ReplayerNotFoundError(
            f"the replayer {name!r} cannot be imported: {exc}; install what it needs, such as lemica[backend]"
        ) from exc
    if not model_dir.is_dir():
        raise CalibrationError(f"{model_dir} is no folder; give the model folder, the one with config.pbtxt")
    return _opened(factory, name, model_dir)


def _opened(factory: Callable[[Path], Replayer], name: str, model_dir: Path) -> Replayer:
    try:
        return factory(model_dir)
    except Exception as exc:  # whatever another package raises about the folder that the user named
        raise CalibrationError(f"the replayer {name!r} cannot open {model_dir}: {exc}") from exc


def _budgets(text: str | None, num_steps: int) -> list[int]:
    """Read ``25,17,10``; by default the budgets that get names."""
    if text is None:
        return list(default_names(num_steps, range(2, num_steps + 1)).values())
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise PlanFormatError(f"budgets must be numbers of steps, separated by commas; got {text!r}")
    return [int(part) for part in parts]


def _require_folder(output: Path) -> None:
    """Refuse before the long work what would fail after it."""
    if not output.resolve().parent.is_dir():
        raise CalibrationError(f"the folder of {output} does not exist; create it, or give another path")


def _parse_names(text: str | None) -> dict[str, int] | None:
    """Read ``slow=25,fast=10``; None stays None, and an empty text means no names."""
    if text is None:
        return None
    names = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition("=")
        if not (number.isascii() and number.isdigit()) or name in names:
            raise PlanFormatError(f"names must be NAME=NUMBER, separated by commas, each once; got {text!r}")
        names[name] = int(number)
    return names


def _config_path(path: Path) -> Path:
    return path / "config.pbtxt" if path.is_dir() else path


def _load_plan(source: str, names: dict[str, int] | None) -> CachePlan:
    """Read a plan from any of the places it may be in; `names` replace its own."""
    if source.startswith(_PUBLISHED):
        plan = published_plan(source.removeprefix(_PUBLISHED))
    else:
        path = _config_path(Path(source))
        content = path.read_bytes()
        if content.startswith(_ZIP):
            return CachePlan.from_graph(load_graph(path), names=names)
        plan = CachePlan.from_json(_decoded(content, path)) if content.lstrip()[:1] == b"{" else read_plan(path)
    return plan if names is None else replace(plan, names=names)


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        raise PlanFormatError(f"{path} is no UTF-8 text: {exc}; give a plan that `solve` wrote") from exc
