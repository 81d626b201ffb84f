"""Plans and graphs as Rich tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.table import Table
from rich.text import Text

from lemica_planner.graph import ErrorGraph
from lemica_planner.operator_graph import OperatorGraph
from lemica_planner.plan import CachePlan, PlanEntry
from lemica_planner.provenance import Provenance

__all__ = ["choice_table", "describe_graph", "plan_table", "provenance_table"]

_COMPUTED, _REUSED = "█", "·"


def plan_table(plan: CachePlan) -> Table:
    """Return one row for each budget: name, errors, longest reuse, steps and their picture.

    The predicted error is that of the worst edge; the outcome, of plans that were refined, that of the whole path.
    """
    table = Table(title=f"plan {plan.plan_id}", title_justify="left", show_lines=True)
    outcome = ("outcome",) if plan.has_outcomes else ()
    headings = ("budget", "name", "predicted error", *outcome, "longest span")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "name" else "right")
    table.add_column(f"steps ({_COMPUTED} computed, {_REUSED} reused)", overflow="fold")
    for budget, entry in plan.entries.items():
        errors = [_measured(entry.predicted_error), *(_measured(entry.outcome) for _ in outcome)]
        name, longest = _names(plan.names, budget), str(_longest(entry.steps))
        table.add_row(str(budget), name, *errors, longest, _steps(plan, entry))
    return table


def provenance_table(provenance: Provenance) -> Table:
    """Return what is stated about a plan's or a graph's origin."""
    table = Table(show_header=False, box=None)
    for name, value in provenance.to_dict().items():
        table.add_row(Text(name, style="dim"), Text("not stated" if value is None else str(value)))
    return table


def choice_table(choices: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row for each cost, reference and measure: the best way without a cache, with one, and which wins."""
    table = Table("cost", "against", "measure", "best without a cache", "", "best with a cache", "", "caching wins")
    for choice in choices:
        cells = [
            cell
            for kind in ("uncached", "cached")
            for best in [choice["best"].get(kind)]
            for cell in ((best["name"], f"{best['value']:.4g}") if best else ("", ""))
        ]
        table.add_row(str(choice["cost"]), choice["reference"], choice["measure"], *cells, choice["verdict"])
    return table


def describe_graph(graph: ErrorGraph | OperatorGraph) -> str:
    """Return one line about the graph's size."""
    samples = 0 if graph.sample_errors is None else len(graph.sample_errors)
    size = f"error graph of {graph.num_steps} steps, edges up to {graph.max_span} steps long, {samples} samples"
    if not isinstance(graph, OperatorGraph):
        return size
    return f"{size}, {graph.measured[0].sum()} of {graph.measured.shape[1]} segments measured"


def _names(names: Mapping[str, int], budget: int) -> str:
    return ", ".join(name for name, at in names.items() if at == budget)


def _measured(error: float | None) -> str:
    return "not measured" if error is None else f"{error:.4g}"


def _longest(steps: Sequence[int]) -> int:
    return max(end - start for start, end in pairwise(steps))


def _steps(plan: CachePlan, entry: PlanEntry) -> Text:
    computed = set(entry.steps)
    marks = (_COMPUTED if step in computed else _REUSED for step in range(plan.provenance.num_inference_steps))
    return Text("".join(marks) + "\n" + _ranges(entry.steps))


def _ranges(steps: Sequence[int]) -> str:
    """Return the steps with runs shortened, such as ``0-3,7``."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)
