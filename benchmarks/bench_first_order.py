"""What forecasts leave of the final error of plain reuse, by sampler and computed steps, on evenly spaced steps.

``python -m benchmarks.bench_first_order STEPS.json``: from what ``lemica-planner steps`` wrote with `residual` and
other operators for the same samplers. Printed is a mean over prompts of the ratio to what `residual` loses,
with 95 % bootstrap intervals. The last line is the same as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.bench_outcomes import bootstrap

_WIDTH = 120
_BASE, _PLAN = "residual", "even"


def shares(ways: Sequence[Mapping[str, Any]], measure: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each sampler, forecast, number of computed steps and reference."""
    known = {key: way for way in ways if (key := _key(way))}
    for (sampler, operator, cost), way in known.items():
        base = known.get((sampler, _BASE, cost))
        if operator == _BASE or base is None:
            continue
        for reference, values in way["values"].items():
            if measure in values:
                ratio = np.asarray(values[measure]) / np.asarray(base["values"][reference][measure])
                found = {"of_reuse": float(ratio.mean()), "interval": bootstrap(ratio)}
                yield {"sampler": sampler, "operator": operator, "forwards": cost, "reference": reference, **found}


def _key(way: Mapping[str, Any]) -> tuple[str, str, int] | None:
    """Return sampler, operator and cost of a cached way with evenly spaced steps of one operator."""
    entry = way["way"].get("entry")
    operators = set(entry["operators"] or (_BASE,)) if entry else set()
    if len(operators) != 1 or way["way"].get("plan") != _PLAN:
        return None
    return f"{way['way']['sampler']['name']}, {way['way']['num_steps']} steps", operators.pop(), way["cost"]


def main(
    steps: Annotated[Path, typer.Argument(help="What `lemica-planner steps` wrote.")],
    *,
    measure: Annotated[str, typer.Option(help="What is compared; smaller must be better.")] = "latents_l1",
) -> None:
    """Print the shares as a table, then as one line of JSON."""
    known = json.loads(steps.read_text(encoding="utf-8"))
    rows = list(shares(known["ways"], measure))
    table = Table("sampler", "operator", "forwards", "against", f"{measure} / that of {_BASE}")
    for row in rows:
        low, high = row["interval"]
        cells = (row["sampler"], row["operator"], str(row["forwards"]), row["reference"])
        table.add_row(*cells, f"{row['of_reuse']:.3f} ({low:.3f} to {high:.3f})")
    Console(width=_WIDTH).print(table)
    print(json.dumps({"samples": len(known["samples"]), "measure": measure, "rows": rows}))


if __name__ == "__main__":
    typer.run(main)
