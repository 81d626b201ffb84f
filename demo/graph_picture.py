"""Draws the plan on the error graph: a heat map of what each reuse costs, and each budget's path through it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

_INK = "#334155"
_HEAT = LinearSegmentedColormap.from_list("heat", ["#f1f5f9", "#bfdbfe", "#6b8fc9", "#3b4f86", "#1e2749"])


def draw_graph(weights: NDArray[np.float64], paths: Mapping[str, Sequence[int]], colours: Mapping[str, str]) -> str:
    """Return an SVG picture of the error graph with the paths of several budgets.

    Parameters
    ----------
    weights : ndarray of float, shape (T, T)
        ``weights[i, j]``: error of computing i and j and reusing i between; inf where that is not allowed.
    paths : mapping
        Computed steps by budget.
    colours : mapping
        A CSS colour for each of these budgets.
    """
    # Text stays text, in the page's own font; the salt makes the picture the same for the same plan.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "lemica"}):
        figure = Figure(figsize=(7.6, 6.4), layout="constrained")
        axes = figure.add_subplot()
        _draw_heat(figure, axes, weights)
        for budget, steps in paths.items():
            _draw_path(axes, steps, colours[budget], f"{budget} ({len(steps)} steps)")
        _dress(axes, len(weights), has_paths=bool(paths))
        return _to_svg(figure)


def _draw_heat(figure: Figure, axes: Axes, weights: NDArray[np.float64]) -> None:
    above = np.triu(np.ones(weights.shape, dtype=bool), k=2)  # neighbours reuse nothing and cost nothing
    shown = above & np.isfinite(weights) & (weights > 0)
    if not shown.any():
        return
    low, high = float(weights[shown].min()), float(weights[shown].max())
    norm = LogNorm(low, max(high, low * 1.001))
    image = axes.imshow(np.where(shown, weights, np.nan), cmap=_HEAT, norm=norm, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02)
    bar.set_label("error of the final video (log scale)", color=_INK, labelpad=14)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=_INK, length=2, which="both")


def _draw_path(axes: Axes, steps: Sequence[int], colour: str, label: str) -> None:
    """Draw hops i -> j as stairs from the diagonal at i over the cell (i, j) to the diagonal at j."""
    corners_x, corners_y = [steps[0]], [steps[0]]
    for i, j in pairwise(steps):
        corners_x += [j, j]
        corners_y += [i, j]
    axes.plot(corners_x, corners_y, color=colour, linewidth=1.8, solid_joinstyle="miter", label=label)
    axes.plot(steps[1:], steps[:-1], color=colour, marker="o", markersize=4, linestyle="none")


def _dress(axes: Axes, num_steps: int, *, has_paths: bool) -> None:
    axes.set_xlim(-0.5, num_steps - 0.5)
    axes.set_ylim(num_steps - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_xlabel("next computed step j", color=_INK)
    axes.set_ylabel("last computed step i", color=_INK)
    axes.tick_params(colors=_INK, length=3)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color("#cbd5e1")
    if has_paths:
        axes.legend(loc="lower left", frameon=False, labelcolor=_INK)


def _to_svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]  # an HTML page wants the element, not the XML file
