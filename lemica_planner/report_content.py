"""What a report shows, and its pictures. Knows nothing about pages and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lemica_planner.curves_file import Words
from lemica_planner.graph import ErrorGraph
from lemica_planner.history_solver import shortest_with_history
from lemica_planner.operator_graph import OperatorGraph
from lemica_planner.pictures import Chart, Picture, Point, Series, draw_chart, draw_heat_map
from lemica_planner.plan import CachePlan
from lemica_planner.sheet import Sheet
from lemica_planner.solver import evaluate, shortest_path_all, uniform_steps

__all__ = ["Report"]

_SHORT_LEGEND = 6  # lines
_Errors = Mapping[str, Mapping[int, float]]  # by method and budget


@dataclass(frozen=True, eq=False)
class Report:
    """A graph and its plan, with what was measured of them.

    Attributes
    ----------
    measured : ErrorGraph or OperatorGraph
    plan : CachePlan
        Made from it.
    curves : mapping of str to mapping of str to Chart
        What benchmarks measured, by file and measure.
    sheets : tuple of Sheet
    steps : mapping, optional
        What ``lemica-planner steps`` wrote; see `lemica_planner.report_steps`.
    words : mapping of str to Words
        What the files of `curves` say of them.
    """

    measured: ErrorGraph | OperatorGraph
    plan: CachePlan
    curves: Mapping[str, Mapping[str, Chart]] = field(default_factory=dict)
    sheets: tuple[Sheet, ...] = ()
    steps: Mapping[str, Any] | None = None
    words: Mapping[str, Words] = field(default_factory=dict)

    @cached_property
    def graph(self) -> ErrorGraph:
        """The graph itself, or that of every edge's best operator and history."""
        return self.measured.to_error_graph() if isinstance(self.measured, OperatorGraph) else self.measured

    @cached_property
    def errors(self) -> _Errors:
        """The error of the worst reuse by method and budget; inf where a reuse is not allowed."""
        minimax = {at: entry.predicted_error or 0.0 for at, entry in self.plan.entries.items()}
        if isinstance(self.measured, OperatorGraph):
            return {"minimax": minimax, **_rivals_with_history(self.measured, self.plan)}
        return {"minimax": minimax, **_rivals(self.measured, self.plan)}

    @cached_property
    def pictures(self) -> dict[str, Picture]:
        """``map``, ``worst``, ``positions`` and FILE/MEASURE of all curves; those with nothing to draw are left out."""
        unit = self.plan.provenance.metric or "error"
        charts = {"worst": _worst_chart(self.errors, unit), "positions": _positions_chart(self.graph, unit)}
        files = sorted(self.curves, key=lambda file: not _has_ours(self.curves[file]))
        charts |= {f"{file}/{measure}": chart for file in files for measure, chart in self.curves[file].items()}
        shown = {name: chart for name, chart in charts.items() if chart.drawable().series}
        drawn = {name: draw_chart(chart, has_legend=not _repeats(name, shown)) for name, chart in shown.items()}
        paths = {budget: entry.steps for budget, entry in self.plan.entries.items()}
        return {"map": draw_heat_map(self.graph, paths, self.plan.names), **drawn}


def _has_ours(charts: Mapping[str, Chart]) -> bool:
    return any(series.is_ours for chart in charts.values() for series in chart.series)


def _repeats(name: str, charts: Mapping[str, Chart]) -> bool:
    """Whether a chart has a long legend that an earlier one of the same file has, too."""
    lines = _lines(charts[name])
    before = list(charts)[: list(charts).index(name)]
    same = [other for other in before if other.partition("/")[0] == name.partition("/")[0]]
    return len(lines) > _SHORT_LEGEND and any(_lines(charts[other]) == lines for other in same)


def _lines(chart: Chart) -> list[str]:
    return [series.name for series in chart.drawable().series]


def _rivals(graph: ErrorGraph, plan: CachePlan) -> _Errors:
    shortest = shortest_path_all(graph)
    return {
        "shortest": {at: shortest[at].worst for at in plan.entries},
        "uniform": {at: evaluate(graph, uniform_steps(graph.num_steps, at)).worst for at in plan.entries},
    }


def _rivals_with_history(graph: OperatorGraph, plan: CachePlan) -> _Errors:
    """Return the same where an edge's error depends on the steps that the path computed before it."""
    weights = graph.weights()
    shortest = shortest_with_history(graph.candidates.weights(weights))

    def worst(steps: Sequence[int]) -> float:
        is_allowed = int(np.diff(steps).max()) <= graph.max_span
        return graph.entry(steps, weights).predicted_error or 0.0 if is_allowed else np.inf

    return {
        "shortest": {at: worst(shortest[at]) for at in plan.entries},
        "uniform": {at: worst(uniform_steps(graph.num_steps, at)) for at in plan.entries},
    }


def _worst_chart(errors: _Errors, unit: str) -> Chart:
    series = [
        Series(name, tuple(Point.sure(at, error) for at, error in curve.items()), is_ours=name == "minimax")
        for name, curve in errors.items()
    ]
    return Chart("Predicted error of the worst reuse", unit, "computed steps", tuple(series))


def _positions_chart(graph: ErrorGraph, unit: str) -> Chart:
    """Return the errors of a short, a middle and a long span by the first step that they skip."""
    longest = min(graph.max_span, graph.num_steps - 1)
    spans = sorted({2, (longest + 2) // 2, longest}) if longest > 1 else []
    series = [Series(f"span {span}", _by_position(graph, span)) for span in spans]
    return Chart("Error of equal spans by position", unit, "first step that reuses", tuple(series))


def _by_position(graph: ErrorGraph, span: int) -> tuple[Point, ...]:
    starts = range(graph.num_steps - span)
    return tuple(Point.sure(start + 1, float(graph.weights[start, start + span])) for start in starts)
