"""A self-contained HTML page about an error graph: the graph, the plans, their rivals, and what benchmarks measured."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from html import escape
from importlib.resources import files
from string import Template

from lemica_planner.calibration_cost import CalibrationCost, calibration_cost
from lemica_planner.confidence import Confidence, confidence
from lemica_planner.curves_file import Words
from lemica_planner.graph import ErrorGraph
from lemica_planner.operator_graph import OperatorGraph
from lemica_planner.pictures import draw_strip, to_svg, tones_css
from lemica_planner.plan import CachePlan
from lemica_planner.report_content import Report
from lemica_planner.report_steps import render_steps
from lemica_planner.sheet import Sheet

__all__ = ["render_report"]


def render_report(report: Report) -> str:
    """Return the page of a report.

    It shows the errors as a heat map with every path, the worst error of the plan beside those of the shortest path and
    of evenly spaced steps, the errors of equal spans by position, what benchmarks measured, contact sheets, what the
    calibration cost, how sure the named budgets are, and what a comparison of steps says. It needs no network;
    selecting a budget needs JavaScript.
    """
    plan, shown = report.plan, _first_shown(report.plan)
    rows = [
        _row(plan, budget, {method: curve[budget] for method, curve in report.errors.items()}, is_shown=budget == shown)
        for budget in plan.entries
    ]
    page = files("lemica_planner").joinpath("report_page.html").read_text(encoding="utf-8")
    return Template(page).substitute(
        title=escape(f"LeMiCa plan: {plan.provenance.model or 'unnamed model'}"),
        tones=tones_css(),
        tiles="".join(_tiles(plan)),
        facts=_facts(report.graph, plan),
        map=to_svg(report.pictures["map"]),
        worst=_chart(report, "worst"),
        positions=_chart(report, "positions"),
        curves=_curves(report),
        sheets="<h2>What budgets look like</h2>" * bool(report.sheets) + "".join(map(_sheet, report.sheets)),
        cost=_cost(calibration_cost(report.measured)),
        sureness=_sureness(report.measured, plan),
        rows="".join(rows),
        whole="; &ldquo;whole path&rdquo; is what all reuses change together" * plan.has_outcomes,
        outcome="<th>whole path</th>" * plan.has_outcomes,
        steps=render_steps(report.steps) if report.steps else "",
        shown=shown,
        place=list(plan.entries).index(shown),
        last=len(plan.entries) - 1,
    )


def _first_shown(plan: CachePlan) -> int:
    """Return the smallest budget that has a name, or the middle one."""
    return min(plan.names.values(), default=list(plan.entries)[len(plan.entries) // 2])


def _tiles(plan: CachePlan) -> Iterator[str]:
    """Yield what each named budget saves."""
    num_steps = plan.provenance.num_inference_steps
    for name, budget in sorted(plan.names.items(), key=lambda named: -named[1]):
        yield (
            f"<div><b>{escape(name)}</b><strong>{num_steps / budget:.2g}&times;</strong>"
            f"<span>fewer forwards: {budget} of {num_steps} steps computed</span></div>"
        )


def _chart(report: Report, name: str) -> str:
    if name not in report.pictures:
        return "<p>No budget below the number of steps has a path, so there is nothing to compare.</p>"
    return to_svg(report.pictures[name])


def _curves(report: Report) -> str:
    """Return the charts of all benchmarks, those of a file under its name."""
    groups: dict[str, list[str]] = {}
    for name, picture in report.pictures.items():
        if "/" in name:
            groups.setdefault(name.partition("/")[0], []).append(f"<figure>{to_svg(picture)}</figure>")
    if not groups:
        return ""
    sections = (
        f'{_heading(file, report.words.get(file, Words()))}<div class="grid">{"".join(figures)}</div>'
        for file, figures in groups.items()
    )
    return (
        "<h2>Measured against cost</h2><p>What benchmarks measured, as means with 95 % intervals, by the file that "
        "it is from. Thick: ours. Point at a dot for its numbers. A long legend stands under the first chart of its "
        f"file, and holds for those without one.</p>{''.join(sections)}"
    )


def _heading(file: str, words: Words) -> str:
    """Return what a file says of its charts, or its name where it says nothing."""
    heading = words.heading or file.replace("_", " ").replace("-", " ").capitalize()
    return f"<h3>{escape(heading)}</h3>" + f"<p>{escape(words.about)}</p>" * bool(words.about)


def _sheet(sheet: Sheet) -> str:
    caption = escape(sheet.caption)
    return (
        f'<figure class="sheet"><figcaption>{caption}</figcaption><div class="wide">'
        f'<img src="{sheet.uri}" alt="{caption}"></div></figure>'
    )


def _cost(cost: CalibrationCost | None) -> str:
    if cost is None:
        return "<p>The graph does not say how it was calibrated.</p>"
    if cost.measured == cost.segments:
        every = f"All {cost.segments} edges of {cost.samples} samples were measured: {cost.forwards} forwards."
        return f"<p>{every}</p>"
    share = cost.forwards / cost.naive
    bars = "".join(_bar(text, count, cost.naive) for text, count in (("naive", cost.naive), ("spent", cost.forwards)))
    rows = [
        ("forwards spent", f"{cost.forwards}, on {cost.samples} samples"),
        ("of these to refine", f"{cost.refinement} forwards"),
        ("the naive replay of the same edges", f"{cost.naive} forwards"),
        ("spent over naive", f"{share:.1%}, or {1 / share:.3g} times fewer"),
        ("segments measured", f"{cost.measured} of {cost.segments} ({cost.measured / cost.segments:.1%})"),
        ("segments estimated", str(cost.segments - cost.measured)),
        ("to measure every segment", f"{cost.every_segment} forwards"),
        ("estimate over error, in the check", _check(cost.check)),
    ]
    table = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    return f'<div class="bars">{bars}</div><dl>{table}</dl>'


def _bar(text: str, count: int, most: int) -> str:
    width = 100 * count / max(most, count)
    return f'<span>{escape(text)}</span><div><div style="width:{width:.1f}%"></div></div><span>{count}</span>'


def _check(check: Mapping[str, object]) -> str:
    low, middle, high = (check.get(key) for key in ("estimate_over_error_p10", "median", "p90"))
    if low is None or middle is None or high is None:
        return "nothing was left to check"
    return f"{low} to {high} (10th to 90th percentile), median {middle}, of {check['segments']} segments off the paths"


def _sureness(graph: ErrorGraph | OperatorGraph, plan: CachePlan) -> str:
    """Return a table of what draws of the samples say about the named budgets."""
    if graph.sample_errors is None or len(graph.sample_errors) < 2:
        return "<p>The graph holds the errors of one sample at most, so nothing can be said about others.</p>"
    rows = "".join(_sure_row(plan, found) for found in confidence(graph, sorted(set(plan.names.values()))))
    return (
        '<div class="wide"><table><thead><tr><th>computed steps</th><th>draws that choose the same steps</th>'
        "<th>worst reuse, 95 %</th><th>regret</th><th>samples for a regret of 2 %</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _sure_row(plan: CachePlan, found: Confidence) -> str:
    needed = "more than 64 times those here"
    if found.samples_needed is not None:
        more = found.samples_needed - found.samples
        needed = f"about {found.samples_needed}, {more} more" if more else f"these {found.samples}"
    return (
        f"<tr><td>{found.budget} {_names(plan, found.budget)}</td><td>{found.agreement:.0%}</td>"
        f"<td>{found.worst_low:.4g} to {found.worst_high:.4g}</td><td>{found.regret:.1%}</td><td>{needed}</td></tr>"
    )


def _facts(graph: ErrorGraph, plan: CachePlan) -> str:
    known = {key: value for key, value in plan.provenance.to_dict().items() if value not in (None, {})}
    known |= {"plan_id": plan.plan_id, "longest edge": graph.max_span}
    return "".join(f"<dt>{escape(key)}</dt><dd>{escape(_text(value))}</dd>" for key, value in known.items())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _row(plan: CachePlan, budget: int, errors: Mapping[str, float], *, is_shown: bool) -> str:
    entry, num_steps = plan.entries[budget], plan.provenance.num_inference_steps
    cells = [f"<td>{num_steps / budget:.2f}&times;</td>"]
    cells += [f"<td>{_number(errors[method])}</td>" for method in ("minimax", "shortest", "uniform")]
    if plan.has_outcomes:
        cells.append(f"<td>{'' if entry.outcome is None else _number(entry.outcome)}</td>")
    return (
        f'<tr data-budget="{budget}"{" class=chosen" if is_shown else ""}>'
        f'<td><button type="button">{budget}</button> {_names(plan, budget)}</td>'
        f'<td class="plan">{draw_strip(entry.steps, num_steps)}</td>{"".join(cells)}</tr>'
    )


def _names(plan: CachePlan, budget: int) -> str:
    return escape(", ".join(name for name, at in plan.names.items() if at == budget))


def _number(error: float) -> str:
    return f"{error:.4g}" if math.isfinite(error) else "not allowed"
