"""A self-contained HTML page about an error graph: the graph, the plans and their rivals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from lemica_planner.confidence import Confidence, confidence
from lemica_planner.graph import ErrorGraph
from lemica_planner.operator_graph import OperatorGraph
from lemica_planner.pictures import draw_chart, draw_heat_map, draw_strip
from lemica_planner.plan import CachePlan
from lemica_planner.report_steps import render_steps
from lemica_planner.solver import evaluate, shortest_path_all, uniform_steps

__all__ = ["render_report"]


def render_report(measured: ErrorGraph | OperatorGraph, plan: CachePlan, steps: Mapping[str, Any] | None = None) -> str:
    """Return the page for a graph and the `plan` made from it, with what a comparison of `steps` says.

    It shows the errors as a heat map with the chosen path, per budget the worst error of the plan beside those of the
    shortest path and of evenly spaced steps, the errors of equal spans by position, and how sure the named budgets
    are. It needs no network; selecting a budget needs JavaScript.
    """
    graph = measured.to_error_graph() if isinstance(measured, OperatorGraph) else measured
    curves = _curves(graph, plan)
    shown = _first_shown(plan)
    rows = [
        _row(plan, budget, {method: curve[budget] for method, curve in curves.items()}, is_shown=budget == shown)
        for budget in plan.entries
    ]
    page = files("lemica_planner").joinpath("report_page.html").read_text(encoding="utf-8")
    return Template(page).substitute(
        title=escape(f"LeMiCa plan: {plan.provenance.model or 'unnamed model'}"),
        facts=_facts(graph, plan),
        map=draw_heat_map(graph, plan.entries[shown].steps),
        chart=draw_chart(curves, graph.num_steps),
        positions=draw_chart(_positions(graph), graph.num_steps, "first step that reuses"),
        spans=_span_key(graph),
        sureness=_sureness(measured, plan),
        rows="".join(rows),
        steps=render_steps(steps) if steps else "",
        shown=shown,
    )


def _first_shown(plan: CachePlan) -> int:
    """Return the smallest budget that has a name, or the middle one."""
    return min(plan.names.values(), default=list(plan.entries)[len(plan.entries) // 2])


def _curves(graph: ErrorGraph, plan: CachePlan) -> dict[str, dict[int, float]]:
    """Return each method's worst error by budget; the plan's last, so that it is drawn on top."""
    shortest = shortest_path_all(graph)
    return {
        "uniform": {at: evaluate(graph, uniform_steps(graph.num_steps, at)).worst for at in plan.entries},
        "shortest": {at: shortest[at].worst for at in plan.entries},
        "minimax": {at: entry.predicted_error or 0.0 for at, entry in plan.entries.items()},
    }


def _spans(graph: ErrorGraph) -> dict[str, int]:
    """Return a short, a middle and a long span, by the class of their curve."""
    longest = min(graph.max_span, graph.num_steps - 1)
    return {"near": 2, "middle": max(2, (longest + 2) // 2), "far": longest}


def _positions(graph: ErrorGraph) -> dict[str, dict[int, float]]:
    """Return the error of equal spans by the first step that they skip."""
    return {
        name: {start + 1: float(graph.weights[start, start + span]) for start in range(graph.num_steps - span)}
        for name, span in _spans(graph).items()
    }


def _span_key(graph: ErrorGraph) -> str:
    return ", ".join(f'<b class="{name}">{span}</b>' for name, span in _spans(graph).items())


def _sureness(graph: ErrorGraph | OperatorGraph, plan: CachePlan) -> str:
    """Return a table of what draws of the samples say about the named budgets."""
    if graph.sample_errors is None or len(graph.sample_errors) < 2:
        return "<p>The graph holds the errors of one sample at most, so nothing can be said about others.</p>"
    rows = "".join(_sure_row(plan, found) for found in confidence(graph, sorted(plan.names.values())))
    return (
        '<div class="wide"><table><thead><tr><th>computed steps</th><th>draws that choose the same steps</th>'
        "<th>worst reuse, 95 %</th><th>regret</th><th>samples for a regret of 2 %</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _sure_row(plan: CachePlan, found: Confidence) -> str:
    names = ", ".join(name for name, at in plan.names.items() if at == found.budget)
    needed = "more than 64 times those here" if found.samples_needed is None else f"about {found.samples_needed}"
    return (
        f"<tr><td>{found.budget} {escape(names)}</td><td>{found.agreement:.0%}</td>"
        f"<td>{found.worst_low:.4g} to {found.worst_high:.4g}</td><td>{found.regret:.1%}</td><td>{needed}</td></tr>"
    )


def _facts(graph: ErrorGraph, plan: CachePlan) -> str:
    known = {key: value for key, value in plan.provenance.to_dict().items() if value not in (None, {})}
    known |= {"plan_id": plan.plan_id, "longest edge": graph.max_span}
    return "".join(f"<dt>{escape(key)}</dt><dd>{escape(_text(value))}</dd>" for key, value in known.items())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _row(plan: CachePlan, budget: int, errors: Mapping[str, float], *, is_shown: bool) -> str:
    steps, num_steps = plan.entries[budget].steps, plan.provenance.num_inference_steps
    names = ", ".join(name for name, at in plan.names.items() if at == budget)
    cells = [f"<td>{num_steps / budget:.2f}&times;</td>"]
    cells += [f"<td>{_number(errors[method])}</td>" for method in ("minimax", "shortest", "uniform")]
    return (
        f'<tr data-steps="{",".join(map(str, steps))}"{" class=shown" if is_shown else ""}>'
        f'<td><button type="button">{budget}</button> {escape(names)}</td>'
        f'<td class="plan">{draw_strip(steps, num_steps)}</td>{"".join(cells)}</tr>'
    )


def _number(error: float) -> str:
    return f"{error:.4g}" if math.isfinite(error) else "not allowed"
