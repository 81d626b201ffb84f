"""``python -m benchmarks.load COMMAND``: latency against peers, perf_analyzer, and what may break the server."""

from __future__ import annotations

import signal
import sys

import typer
from rich.console import Console

from benchmarks.load.commands import drive, latency, perf, priorities, simulate
from benchmarks.load.robustness_commands import disconnects, kills, malformed, soak
from lemica_backend.errors import LemicaError
from lemica_planner import PlannerError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
for _command in (drive, latency, perf, simulate, priorities, malformed, disconnects, kills, soak):
    app.command()(_command)


def main() -> None:
    """Run a command; every error that is expected is one line."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way the server must be stopped
    try:
        app(prog_name="python -m benchmarks.load")
    except (LemicaError, PlannerError, OSError, ValueError) as error:
        Console(stderr=True).print(f"Error: {error}", style="bold red", markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
