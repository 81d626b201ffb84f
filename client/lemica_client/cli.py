"""The command line `lemica`: make a video on a server, show what the server's model can do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import metadata
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.table import Table
except ModuleNotFoundError as missing:
    raise SystemExit(f"lemica needs {missing.name}: pip install '.[client]' in a checkout of lemica") from missing

from lemica_client.cli_options import (
    AsJson,
    Headers,
    Model,
    Retries,
    TimeoutS,
    TlsCert,
    TlsInsecure,
    TlsKey,
    TlsRoot,
    Url,
    connection_settings,
    open_client,
)
from lemica_client.cli_ui import ui
from lemica_client.commands import CommandGroup
from lemica_client.connection import DEFAULT_URL
from lemica_client.errors import InvalidRequestError, LemicaClientError
from lemica_client.events import Accepted, Progress
from lemica_client.progress import Watcher, describe
from lemica_client.video import Video, file_format_of

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    help="Video diffusion on a Triton server that skips most of the work: LeMiCa cache plans.",
)
_stdout = Console()
_stderr = Console(stderr=True)
_MORE = "all budgets, drawn: the same with --json > plan.json, then lemica-planner show plan.json"


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        try:
            typer.echo(f"lemica {metadata.version('lemica')}")
        except metadata.PackageNotFoundError:
            typer.echo("lemica 0+unknown")  # runs uninstalled
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What the video should show.", show_default=False)],
    *,
    budget: Annotated[
        str | None,
        typer.Option(
            help="full, a name in the model's plan (slow, fast), a number of computed steps, or a range: fast..slow."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the noise; the server draws one if left out.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .mp4, .gif or .webp.")] = Path(
        "video.mp4"
    ),
    negative_prompt: Annotated[str | None, typer.Option(help="What the video should not show.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="What the video begins with, for models that take one: PNG, JPEG or WebP.")
    ] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Weight of the prompt; 1 turns guidance off.")] = None,
    num_inference_steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    deadline_ms: Annotated[int | None, typer.Option(help="Milliseconds after which it is of no use.")] = None,
    priority: Annotated[int | None, typer.Option(help="Requests of a higher one go first; 0 by default.")] = None,
    url: Url = DEFAULT_URL,
    model: Model = "latte_shapes",
    timeout_s: TimeoutS = 600.0,
    retries: Retries = 2,
    header: Headers = None,
    tls_root: TlsRoot = None,
    tls_key: TlsKey = None,
    tls_cert: TlsCert = None,
    tls_insecure: TlsInsecure = False,
    as_json: AsJson = False,
) -> None:
    """Make one video and save it; the server encodes it.

    A terminal shows every step if the server has the streaming model MODEL_stream. Ctrl-C ends with exit code 130 and
    stops the work on the server over gRPC or from a stream; over HTTP without one it runs on to the time limit.
    """
    with _errors_in_one_line():
        file_format = _check_output(output)
        connection = connection_settings(header, tls_root, tls_key, tls_cert, tls_insecure)
        with open_client(url, model, timeout_s, retries, connection) as client, _bar() as watcher:
            video = client.generate(
                prompt,
                negative_prompt=negative_prompt,
                image=image,
                seed=seed,
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
                budget=budget,
                deadline_ms=deadline_ms,
                priority=priority,
                file_format=file_format,
                want_frames=False,
                progress=watcher or False,
            )
        video.save(output)
    _print_summary(video, output, as_json)


@app.command()
def plan(
    *,
    url: Url = DEFAULT_URL,
    model: Model = "latte_shapes",
    timeout_s: TimeoutS = 30.0,
    header: Headers = None,
    tls_root: TlsRoot = None,
    tls_key: TlsKey = None,
    tls_cert: TlsCert = None,
    tls_insecure: TlsInsecure = False,
    as_json: AsJson = False,
) -> None:
    """Show the cache plan that a server's model works by.

    With the extra `planner`, `lemica-planner show FILE` draws the steps of every budget from what --json prints.
    """
    with _errors_in_one_line():
        connection = connection_settings(header, tls_root, tls_key, tls_cert, tls_insecure)
        with open_client(url, model, timeout_s, 0, connection) as client:
            cache_plan = client.plan()
    if as_json:
        typer.echo(json.dumps(cache_plan))
    elif cache_plan is None:
        _stdout.print(f"{model} has no cache plan: it serves the budget full only")
    else:
        _stdout.print(_plan_table(cache_plan))
        _stderr.print(_MORE, style="dim", markup=False, highlight=False, soft_wrap=True)


@app.command("ui", help=ui.__doc__)
@wraps(ui)
def _ui(**options: Any) -> None:
    with _errors_in_one_line():
        ui(**options)


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """Exit with 2 for a request that can never be served, 130 for Ctrl-C, 1 for everything else."""
    try:
        yield
    except (LemicaClientError, OSError) as exc:
        text = " ".join(str(exc).split())  # a server's message may carry a traceback
        _stderr.print(f"error: {text}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(exc, InvalidRequestError) else 1) from exc
    except KeyboardInterrupt as exc:
        _stderr.print("cancelled", style="red")
        raise typer.Exit(130) from exc


@contextmanager
def _bar() -> Iterator[Watcher | None]:
    """Show a bar on stderr and lend what moves it; None where nobody would see it."""
    if not _stderr.is_terminal:
        yield None
        return
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Bars(*columns, console=_stderr, transient=True) as bars:
        task = bars.add_task("waiting for the video", total=None)

        def watch(event: Accepted | Progress) -> None:
            if isinstance(event, Progress):
                bars.update(task, completed=event.step, total=event.num_steps)
            bars.update(task, description=describe(event))

        yield watch


def _check_output(output: Path) -> str:
    """Return the file's format; a video that cannot be saved is refused before it is made."""
    if not output.parent.is_dir():
        raise InvalidRequestError(f"{output}: there is no folder {output.parent}")
    return file_format_of(output)


def _print_summary(video: Video, output: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"file": str(output), **video.info}))
        return
    table = Table.grid(padding=(0, 2))
    for name, value in _summary(video.info).items():
        table.add_row(name, value)
    _stdout.print(str(output), style="bold", markup=False, highlight=False, soft_wrap=True)
    _stdout.print(table)


def _summary(info: dict[str, Any]) -> dict[str, str]:
    """Return the lines of the summary; what the server does not say is left out."""
    lines: dict[str, str] = {}
    for key in ("seed", "budget"):
        if key in info:
            lines[key] = str(info[key])
    if "computed_steps" in info:
        lines["computed steps"] = f"{len(info['computed_steps'])} of {info.get('num_inference_steps', '?')}"
    if "total" in info.get("timings_ms", {}):
        lines["seconds"] = f"{info['timings_ms']['total'] / 1000:.2f}"
    if "predicted_error" in info:
        lines["predicted error"] = _format_error(info["predicted_error"])
    if info.get("quality_warning"):
        lines["warning"] = "the prompt may lose more than predicted: try a larger --budget with the same --seed"
    return lines


def _plan_table(cache_plan: dict[str, Any]) -> Table:
    entries: dict[str, dict[str, Any]] = cache_plan.get("entries", {})
    total = cache_plan.get("provenance", {}).get("num_inference_steps", "?")
    table = Table(
        "budget",
        "computed",
        "predicted error",
        "steps",
        caption_justify="left",
        caption=f"budgets: full, {_in_runs(sorted(map(int, entries)))}",
    )
    for name, number in sorted(cache_plan.get("names", {}).items(), key=itemgetter(1)):
        entry = entries[str(number)]
        steps = " ".join(map(str, entry["steps"]))
        table.add_row(name, f"{number} of {total}", _format_error(entry.get("predicted_error")), steps)
    return table


def _in_runs(numbers: list[int]) -> str:
    """Return ascending numbers with runs of three and more shortened: ``6 to 9, 12``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _format_error(error: float | None) -> str:
    return "not measured" if error is None else f"{error:.4g}"
