"""Plans and graphs as Rich tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lemica_planner.graph import ErrorGraph
from lemica_planner.operator_graph import OperatorGraph
from lemica_planner.plan import CachePlan, PlanEntry
from lemica_planner.provenance import Provenance

__all__ = ["choice_table", "describe_graph", "plan_table", "provenance_table"]

_COMPUTED, _REUSED, _NONE = "█", "·", "-"
_ANY_WIDTH = 100_000


def plan_table(plan: CachePlan, width: int) -> Table:
    """Return one row for each budget: name, errors and the picture of its steps.

    The predicted error is that of the worst edge; the outcome, of plans that were refined, that of the whole path.

    Parameters
    ----------
    plan : CachePlan
        What to show.
    width : int
        Columns of the terminal. The longest reuse and the steps as numbers are shown where all rows have room.
    """
    whole = _plan_table(plan, is_whole=True)
    if Console(width=_ANY_WIDTH).measure(whole).maximum <= width:
        return whole
    return _plan_table(plan, is_whole=False)


def _plan_table(plan: CachePlan, *, is_whole: bool) -> Table:
    table = _bare_table(title=f"plan {plan.plan_id}", caption=_legend(plan, is_whole))
    table.add_column("budget")
    for heading in ("predicted error", *(["outcome"] if plan.has_outcomes else []), *(["longest span"] * is_whole)):
        table.add_column(heading if is_whole else heading.replace(" ", "\n"), justify="right")
    table.add_column("steps", overflow="fold")
    if is_whole:
        table.add_column("as numbers")
    for budget in plan.entries:
        table.add_row(*_cells(plan, budget, is_whole), style="bold" if _names(plan.names, budget) else None)
    return table


def _bare_table(**texts: Any) -> Table:
    """Return a table without lines, which leaves the width of a terminal to what it holds."""
    return Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left", caption_justify="left", **texts)


def _legend(plan: CachePlan, is_whole: bool) -> Text:
    marks = f"{_COMPUTED} computed, {_REUSED} reused"
    errors = [error for entry in plan.entries.values() for error in _errors(plan, entry)]
    not_measured = f", {_NONE} not measured" if None in errors else ""
    return Text(marks + not_measured + ("" if is_whole else "; a wider terminal, or `export`, has steps as numbers"))


def _cells(plan: CachePlan, budget: int, is_whole: bool) -> list[str]:
    entry, digits = plan.entries[budget], len(str(max(plan.entries)))
    errors = [_NONE if error is None else f"{error:.3g}" for error in _errors(plan, entry)]
    cells = [f"{budget:{digits}} {_names(plan.names, budget)}", *errors]
    if not is_whole:
        return [*cells, _picture(plan, entry)]
    return [*cells, str(_longest(entry.steps)), _picture(plan, entry), _ranges(entry.steps)]


def _errors(plan: CachePlan, entry: PlanEntry) -> list[float | None]:
    return [entry.predicted_error, *([entry.outcome] if plan.has_outcomes else [])]


def provenance_table(provenance: Provenance) -> Table:
    """Return what is stated about a plan's or a graph's origin."""
    table = Table(show_header=False, box=None)
    table.add_column()
    table.add_column(overflow="fold")  # hashes are shown in full
    for name, value in provenance.to_dict().items():
        table.add_row(Text(name, style="dim"), Text("not stated" if value in (None, {}) else _in_words(value)))
    return table


def _in_words(value: Any) -> str:
    """Return a value, one of several keys as ``key=value, ...``."""
    if not isinstance(value, Mapping):
        return str(value)
    parts = ((key, f"({_in_words(each)})" if isinstance(each, Mapping) else each) for key, each in value.items())
    return ", ".join(f"{key}={each}" for key, each in parts)


def choice_table(choices: Sequence[Mapping[str, Any]]) -> Table:
    """Return two rows for each cost, reference and measure: the best way without a cache, and the best with one."""
    table = _bare_table()
    for heading in ("cost", "against", "measure", "caching\nwins", "cached"):
        table.add_column(heading, no_wrap=True)
    table.add_column("best way", overflow="fold")
    table.add_column("value", no_wrap=True)
    for choice in choices:
        kept = [str(choice["cost"]), choice["reference"], choice["measure"], choice["verdict"]]
        table.add_row(*kept, "no", *_best(choice, "uncached"))
        table.add_row(*[""] * len(kept), "yes", *_best(choice, "cached"))
    return table


def _best(choice: Mapping[str, Any], kind: str) -> tuple[str, str]:
    best = choice["best"].get(kind)
    return (best["name"], f"{best['value']:.4g}") if best else (_NONE, _NONE)


def describe_graph(graph: ErrorGraph | OperatorGraph) -> str:
    """Return one line about the graph's size."""
    samples = 0 if graph.sample_errors is None else len(graph.sample_errors)
    size = f"error graph of {graph.num_steps} steps, edges up to {graph.max_span} steps long, {samples} samples"
    if not isinstance(graph, OperatorGraph):
        return size
    return f"{size}, {graph.measured[0].sum()} of {graph.measured.shape[1]} segments measured"


def _names(names: Mapping[str, int], budget: int) -> str:
    return ", ".join(name for name, at in names.items() if at == budget)


def _longest(steps: Sequence[int]) -> int:
    return max(end - start for start, end in pairwise(steps))


def _picture(plan: CachePlan, entry: PlanEntry) -> str:
    computed = set(entry.steps)
    return "".join(_COMPUTED if step in computed else _REUSED for step in range(plan.provenance.num_inference_steps))


def _ranges(steps: Sequence[int]) -> str:
    """Return the steps with runs shortened, such as ``0-3,7``."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)
