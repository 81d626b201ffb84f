"""``python -m benchmarks.paper table2 | table3 | temporal | transfer MODEL_DIR ...``; ``--help`` says more."""

from __future__ import annotations

import typer

from benchmarks.paper.table2 import table2
from benchmarks.paper.table3 import table3
from benchmarks.paper.temporal import temporal
from benchmarks.paper.transfer import transfer

app = typer.Typer(help="Measure the tables of the LeMiCa paper again, on any model folder.", no_args_is_help=True)
for command in (table2, table3, temporal, transfer):
    app.command()(command)

if __name__ == "__main__":
    app()
