"""``python -m demo``: a real server, every prompt at every budget, a table, and a page to look at."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from demo.lpips_weights import LpipsWeightsError
from demo.measure import PROMPTS_FILE
from demo.run import DemoError, Options, console, run
from lemica_backend.errors import LemicaError
from lemica_client import LemicaClientError
from lemica_planner import PlannerError

_EXPECTED = (DemoError, LpipsWeightsError, LemicaError, LemicaClientError, PlannerError, OSError, ValueError)
_INTERRUPTED = 130  # what a shell reports for Ctrl-C

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    *,
    repository: Annotated[Path, typer.Option(help="Model repository to serve.")] = Path("model_repository"),
    model: Annotated[str, typer.Option(help="Model in it.")] = "latte_shapes",
    url: Annotated[str | None, typer.Option(help="gRPC host:port of a running server; none is started then.")] = None,
    prompts: Annotated[Path, typer.Option(help="File with one prompt a line.")] = PROMPTS_FILE,
    output: Annotated[Path, typer.Option(help="Folder for the videos and the page.")] = Path("out/demo"),
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; more give steadier times.")] = 3,
    numbers: Annotated[int, typer.Option(min=0, help="Budgets given as a number, beside the named ones.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first prompt; the next one takes the next.")] = 0,
) -> None:
    """Send prompts to a real Triton server at every budget, and show what the cache saves and costs."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way the server must be stopped
    try:
        run(Options(repository, model, url, prompts, output, repeats, numbers, seed))
    except KeyboardInterrupt:
        console.print("\nInterrupted: the server is stopped, and no page was written.")
        sys.exit(_INTERRUPTED)
    except _EXPECTED as error:
        console.print("[bold red]Error:[/]", end=" ")
        console.print(str(error), markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    app(prog_name="python -m demo")
