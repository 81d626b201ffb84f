"""What planning anew from a plan's own paths loses against the whole error graph, without running a model.

``python -m benchmarks.bench_replanning GRAPH.npz --budgets 10,17,25,35 --output FILE``

The plan of the graph is solved. From every computed step of the budget's path but the first, the totals that
`lemica_planner.continuations` can still reach are compared with those that the whole graph could: how many steps the
smallest is missed by, how many totals are missing between, and, for the totals that both reach, how many times the best
worst error of the whole graph the new path's predicted one is (1 where both are 0; what is behind counts for neither).
Printed are medians and largest values. The last line is the same as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.bench_outcomes import parse_range
from lemica_planner import CachePlan
from lemica_planner.continuations import Continuations
from lemica_planner.graph_file import load_graph
from lemica_planner.history_solver import Suffixes
from lemica_planner.operator_graph import OperatorGraph


class State(NamedTuple):
    """What one computed step of a path leaves open."""

    missed_below: int
    missed_between: int
    ratios: tuple[float, ...]


def states(graph: OperatorGraph, plan: CachePlan, budget: int) -> Iterator[State]:
    """Yield what can be reached from every computed step of one path."""
    ways, whole = Continuations(plan, looks_back=1), Suffixes(graph.candidates.weights(graph.weights()))
    steps = plan.resolve(budget).steps
    for behind in range(1, budget - 1):
        best = whole.worst(steps[behind], steps[behind] - steps[behind - 1])
        totals = ways.totals(steps[: behind + 1], floor=min(plan.entries))
        reachable = [behind + nodes for nodes in best]
        missing = [total for total in reachable if total not in totals]
        ratios = tuple(
            _ratio(ways, steps[: behind + 1], total, best[total - behind]) for total in totals if total in reachable
        )
        below = [total for total in missing if total < totals[0]]
        yield State(len(below), len(missing) - len(below), ratios)


def _ratio(ways: Continuations, behind: Sequence[int], total: int, best: float) -> float:
    """Return the new path's largest bound ahead over the best worst error ahead."""
    bound = ways.worst_ahead(behind, total)
    return bound / best if best else 1.0 if bound == 0 else float("inf")


def summary(budget: int, found: Sequence[State]) -> dict[str, Any]:
    """Return medians and largest values over a path's states."""
    below = np.array([state.missed_below for state in found])
    between = np.array([state.missed_between for state in found])
    ratios: NDArray[np.float64] = np.array([ratio for state in found for ratio in state.ratios])
    ratios = ratios[np.isfinite(ratios)]
    return {
        "budget": budget,
        "states": len(found),
        "missed_below": [float(np.median(below)), int(below.max())],
        "missed_between": [float(np.median(between)), int(between.max())],
        "error_ratio": [float(np.median(ratios)), float(np.quantile(ratios, 0.9)), float(ratios.max())],
    }


def _show(rows: Sequence[dict[str, Any]]) -> None:
    table = Table(
        "budget", "states", "missed below (median, max)", "between (median, max)", "error ratio (50, 90, 100 %)"
    )
    for row in rows:
        shown = ("missed_below", "missed_between", "error_ratio")
        cells = (", ".join(f"{value:.3g}" for value in row[name]) for name in shown)
        table.add_row(str(row["budget"]), str(row["states"]), *cells)
    Console().print(table)


def main(
    graph: Annotated[Path, typer.Argument(help="A graph of `lemica-planner calibrate`, with histories.")],
    *,
    budgets: Annotated[str, typer.Option(help="Such as 10-30, or 10,17,25.")] = "10,17,25,35",
    output: Annotated[Path | None, typer.Option(help="Also write the JSON there.")] = None,
) -> None:
    """Print the comparison as a table, then as one line of JSON."""
    known = load_graph(str(graph))
    if not isinstance(known, OperatorGraph):
        raise typer.BadParameter("this graph does not know the gap before an edge; calibrate it with --method lazy")
    plan = CachePlan.from_graph(known)
    rows = [summary(budget, list(states(known, plan, budget))) for budget in tqdm(parse_range(budgets))]
    _show(rows)
    text = json.dumps({"graph": graph.name, "rows": rows})
    if output:
        output.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
