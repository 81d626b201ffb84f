"""SVG pictures of error graphs and plans, as text; nothing but arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

import numpy as np

from lemica_planner.graph import ErrorGraph

__all__ = ["draw_chart", "draw_heat_map", "draw_strip"]

_HEAT = ("#eef4fb", "#c5dbf2", "#8db9e4", "#4f8fd0", "#1f64b0", "#0c3d7d")  # small to large error
_MAP_PIXELS = 620
_CHART = (620, 300)
_MARGIN = 64
_CHART_MARGIN = 78


def draw_heat_map(graph: ErrorGraph, steps: Sequence[int]) -> str:
    """Return the graph's reuse edges as cells, row i and column j, with the path of `steps` as stairs over them."""
    cell = _MAP_PIXELS / graph.num_steps
    side = _MAP_PIXELS + _MARGIN
    corners = [corner for step, end in pairwise(steps) for corner in ((step, step), (end, step))]
    corners.append((steps[-1], steps[-1]))
    stairs = " ".join(f"{x * cell:.1f},{y * cell:.1f}" for x, y in corners)
    return (
        f'<svg viewBox="-{_MARGIN} -{_MARGIN} {side + 12} {side + 12}" role="img" '
        'aria-label="heat map of the error graph">'
        + _map_axes(graph.num_steps, cell)
        + _cells(graph, cell)
        + f'<polyline id="path" data-cell="{cell:.4f}" points="{stairs}" '
        + f'transform="translate({cell / 2:.2f},{cell / 2:.2f})"/>'
        + "</svg>"
    )


def draw_chart(series: Mapping[str, Mapping[int, float]], num_steps: int, across: str = "computed steps") -> str:
    """Return curves of error over a number of steps, on a log scale; errors of 0 and inf are left out.

    `across` names the axis; a curve's name is its class.
    """
    kept = {name: {at: y for at, y in curve.items() if 0 < y < math.inf} for name, curve in series.items()}
    values = [value for curve in kept.values() for value in curve.values()]
    if not values:
        return "<p>No budget below the number of steps has a path, so there is nothing to compare.</p>"
    low, high = min(values), max(values) * 1.0001
    curves = "".join(
        f'<polyline class="curve {escape(name)}" points="{_curve(curve, num_steps, low, high)}"/>'
        for name, curve in kept.items()
    )
    width, height = _CHART
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="error over {escape(across)}">'
        + _chart_axes(num_steps, low, high, across)
        + curves
        + "</svg>"
    )


def draw_strip(steps: Sequence[int], num_steps: int) -> str:
    """Return one box for each step: filled where it is computed, empty where it is reused."""
    boxes = "".join(f"M{step} 0h.8v1h-.8z" for step in steps)
    return (
        f'<svg class="strip" viewBox="0 0 {num_steps} 1" preserveAspectRatio="none" style="width:{num_steps * 5}px">'
        f'<path d="{boxes}"/></svg>'
    )


def _cells(graph: ErrorGraph, cell: float) -> str:
    reuse = np.triu(np.isfinite(graph.weights), 2)
    edges = np.argwhere(reuse).tolist()
    errors = graph.weights[reuse].tolist()
    positive = [error for error in errors if error > 0]
    low, high = (min(positive), max(positive)) if positive else (1.0, 1.0)
    return "".join(
        f'<rect x="{end * cell:.1f}" y="{start * cell:.1f}" width="{cell:.2f}" height="{cell:.2f}" '
        f'fill="{_colour(error, low, high)}"><title>{start} → {end}: {error:.4g}</title></rect>'
        for (start, end), error in zip(edges, errors, strict=True)
    )


def _colour(error: float, low: float, high: float) -> str:
    """Return the colour of an error's place between `low` and `high`, on a log scale."""
    if error <= low or high <= low:
        return _HEAT[0]
    share = math.log(error / low) / math.log(high / low)
    return _HEAT[min(int(share * len(_HEAT)), len(_HEAT) - 1)]


def _map_axes(num_steps: int, cell: float) -> str:
    marks = range(0, num_steps, max(1, round(num_steps / 10)))
    across = "".join(f'<text x="{(at + 0.5) * cell:.1f}" y="-8" text-anchor="middle">{at}</text>' for at in marks)
    down = "".join(f'<text x="-8" y="{(at + 0.5) * cell + 4:.1f}" text-anchor="end">{at}</text>' for at in marks)
    middle = _MAP_PIXELS / 2
    label = f'<text transform="translate(-38,{middle}) rotate(-90)" text-anchor="middle">'
    return (
        across
        + down
        + f'<text x="{middle}" y="-32" text-anchor="middle">next computed step j</text>'
        + f"{label}computed step i, reused until j</text>"
    )


def _curve(curve: Mapping[int, float], num_steps: int, low: float, high: float) -> str:
    return " ".join(f"{_x(budget, num_steps):.1f},{_y(error, low, high):.1f}" for budget, error in curve.items())


def _x(budget: float, num_steps: int) -> float:
    return _CHART_MARGIN + (budget - 1) / max(1, num_steps - 1) * (_CHART[0] - _CHART_MARGIN - 16)


def _y(error: float, low: float, high: float) -> float:
    share = math.log(error / low) / math.log(high / low)
    return _CHART[1] - 44 - share * (_CHART[1] - 60)


def _chart_axes(num_steps: int, low: float, high: float, label: str) -> str:
    every = max(1, round(num_steps / 10))
    marks = range(max(2, every), num_steps + 1, every)
    levels = np.geomspace(low, high, 5).tolist()
    bottom, right = _CHART[1] - 24, _CHART[0] - 16
    across = "".join(f'<text x="{_x(at, num_steps):.1f}" y="{bottom}" text-anchor="middle">{at}</text>' for at in marks)
    rules = "".join(
        f'<line x1="{_CHART_MARGIN}" x2="{right}" y1="{_y(level, low, high):.1f}" y2="{_y(level, low, high):.1f}"/>'
        f'<text x="{_CHART_MARGIN - 6}" y="{_y(level, low, high) + 4:.1f}" text-anchor="end">{level:.2g}</text>'
        for level in levels
    )
    return across + rules + f'<text x="{right}" y="{_CHART[1] - 6}" text-anchor="end">{escape(label)}</text>'
