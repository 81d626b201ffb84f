"""The command ``lemica-planner``: prompts, calibrate, steps, solve, apply, show, report, export, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lemica_planner.atomic import write_text
from lemica_planner.cli_calibrate import SampleOption, SampleSeedOption, calibrate_command
from lemica_planner.cli_steps import steps_command
from lemica_planner.config_writer import apply_plan
from lemica_planner.errors import PlanFormatError, PlannerError
from lemica_planner.graph_file import load_graph
from lemica_planner.idle_options import refuse_idle
from lemica_planner.interchange import FORMATS, export_plan, import_plan
from lemica_planner.plan import CachePlan
from lemica_planner.plan_sources import PLAN_SOURCES, PUBLISHED, config_path, decoded, graph_path, load_plan
from lemica_planner.prompt_sets import SOURCES, count_categories, load_prompts, to_json_line
from lemica_planner.provenance import tool_version
from lemica_planner.report import render_report
from lemica_planner.report_content import Report
from lemica_planner.report_files import read_all_curves, read_all_words, save_pictures
from lemica_planner.report_steps import read_comparison
from lemica_planner.served_steps import describe_misfit
from lemica_planner.sheet import read_sheet
from lemica_planner.tables import plan_table, provenance_table
from lemica_planner.terminal import console, one_line_errors

__all__ = ["app"]

app = typer.Typer(
    help="Plan which denoising steps of a video diffusion model to compute, and which to reuse (LeMiCa).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_Names = Annotated[
    str | None,
    typer.Option(help="Names such as slow=25,medium=17,fast=10. By default these three: 1/2, 1/3, 1/5 of the steps."),
]
_Graph = Annotated[
    Path, typer.Argument(help="A graph.npz that `calibrate` wrote, or a model folder with calibration/graph.npz.")
]
_Source = Annotated[str, typer.Argument(help=f"{PLAN_SOURCES}.")]


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"lemica-planner {tool_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


app.command("calibrate")(calibrate_command)
app.command("steps")(steps_command)


@app.command("prompts")
def prompts_command(
    source: Annotated[str, typer.Argument(help=f"Where the prompts come from: {SOURCES}.")],
    sample: SampleOption = None,
    sample_seed: SampleSeedOption = 0,
) -> None:
    """Print the prompts that `calibrate` would use, with their categories, as a .jsonl that it takes as well."""
    with one_line_errors():
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
    with one_line_errors():
        budgets = None if budget is None else [budget]
        plan = CachePlan.from_graph(load_graph(graph_path(graph)), names=_parse_names(names), budgets=budgets)
        if output is None:
            console.print(plan_table(plan, console.width))
        else:
            write_text(output, plan.to_json(pretty=True))
            console.print(f"plan {plan.plan_id} with {len(plan.entries)} budgets: {output}", soft_wrap=True)


@app.command()
def apply(
    source: Annotated[str, typer.Argument(help="A plan: see `show`. With --published, the model folder.")],
    config: Annotated[Path | None, typer.Argument(help="Model folder, or its config.pbtxt.")] = None,
    *,
    names: _Names = None,
    published: Annotated[
        str | None, typer.Option(help="Take the authors' list for this model, such as wan2.1-t2v-1.3b.")
    ] = None,
) -> None:
    """Write the plan of every feasible budget into a model's config.pbtxt."""
    with one_line_errors():
        if (config is None) == (published is None):
            raise PlannerError("give a plan and a model folder, or a model folder and --published NAME")
        origin, folder = (source, config) if config else (f"{PUBLISHED}{published}", Path(source))
        plan = load_plan(origin, _parse_names(names))
        target = config_path(folder)
        apply_plan(target, plan)
        mark = "" if plan.provenance.calibrated else ", not calibrated here"
        console.print(f"plan {plan.plan_id} with {len(plan.entries)} budgets{mark}: {target}", soft_wrap=True)
        if misfit := describe_misfit(target, plan.provenance):
            typer.echo(f"warning: {misfit}", err=True)


@app.command()
def show(source: _Source) -> None:
    """Print a plan, or the plan of a graph: per budget the steps, their picture and the predicted error."""
    with one_line_errors():
        plan = load_plan(source, None)
        console.print(provenance_table(plan.provenance))
        console.print(plan_table(plan, console.width))


@app.command()
def report(
    graph: _Graph,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the page goes.")] = Path("report.html"),
    names: _Names = None,
    steps: Annotated[Path | None, typer.Option(help="A steps.json that `steps` wrote, for a section on it.")] = None,
    curves: Annotated[
        list[Path] | None, typer.Option(help="A result file of a benchmark, for charts of its curves; repeatable.")
    ] = None,
    ours: Annotated[
        list[str] | None,
        typer.Option(help="A method of the curves to draw thick; repeatable. By default lemica... and minimax..."),
    ] = None,
    sheet: Annotated[list[str] | None, typer.Option(help="CAPTION=FILE.png of a contact sheet; repeatable.")] = None,
    png: Annotated[
        Path | None,
        typer.Option(help="Write the charts into this folder as well, as PNG; needs matplotlib (the extra: report)."),
    ] = None,
) -> None:
    """Write an HTML page with the error graph, the plans and how they compare with other choices of steps."""
    with one_line_errors():
        refuse_idle("--ours", "--curves", is_idle=bool(ours) and not curves)
        errors = load_graph(graph_path(graph))
        plan = CachePlan.from_graph(errors, names=_parse_names(names))
        comparison = None if steps is None else read_comparison(steps.read_text(encoding="utf-8"), str(steps))
        sheets = tuple(map(read_sheet, sheet or ()))
        charts, words = read_all_curves(curves or (), ours or ()), read_all_words(curves or ())
        report = Report(errors, plan, charts, sheets, comparison, words)
        for path in save_pictures(report.pictures, png) if png else ():
            console.print(f"picture: {path}", soft_wrap=True)
        write_text(output, render_report(report))
        console.print(f"report: {output}", soft_wrap=True)


@app.command("export")
def export_command(
    source: _Source,
    *,
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "json",
    budget: Annotated[str | None, typer.Option(help="Only this budget, a name or number; cache-dit needs one.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write a file; by default print.")] = None,
) -> None:
    """Write the steps of a plan as plain lists, or as the configuration of cache-dit."""
    with one_line_errors():
        text = export_plan(load_plan(source, None), form, budget)
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
    with one_line_errors():
        text = decoded(lists.read_bytes(), lists)
        plan = import_plan(text, source=origin or lists.name, model=model, names=_parse_names(names))
        write_text(output, plan.to_json(pretty=True))
        console.print(f"plan {plan.plan_id} with {len(plan.entries)} budgets: {output}", soft_wrap=True)


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
