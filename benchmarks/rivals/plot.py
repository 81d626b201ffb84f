"""LPIPS against forwards, one line a method."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

from benchmarks.rivals.compare import DEEP, Curve
from benchmarks.rivals.measure import FULL_METHOD

mpl.use("Agg")

from matplotlib import pyplot as plt

LONGEST_X = 40.0


def draw(curves: Sequence[Curve], base: str, path: Path) -> None:
    """Save the figure: `base` thick and black, and what a deeper model would count dashed, in its method's colour."""
    figure, axes = plt.subplots(figsize=(11, 6.5), layout="constrained")
    styles = cycle(
        [(colour, marker) for marker in "osv^" for colour in mpl.colormaps["tab10"].resampled(10)(range(10))]
    )
    used: dict[str, Any] = {}
    for curve in sorted(curves, key=lambda curve: curve.method != base):  # the first is the first in the legend
        method = curve.method.removesuffix(DEEP)
        if curve.method == base:
            _line(axes, curve, color="black", linewidth=3, marker="D", markersize=6, zorder=3)
        elif curve.method != FULL_METHOD:
            used[method] = used.get(method) or next(styles)
            colour, marker = used[method]
            dash = "-" if curve.method == method else "--"
            _line(axes, curve, color=colour, linewidth=1.2, marker=marker, markersize=4, linestyle=dash)
    _finish(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _line(axes: Axes, curve: Curve, **style: Any) -> None:
    values = curve.values["lpips"].mean(axis=0)
    shown = (values > 0) & (curve.cost <= LONGEST_X)  # a logarithm has no place for identical videos
    axes.plot(curve.cost[shown], values[shown], label=curve.method, **style)


def _finish(axes: Axes) -> None:
    axes.set(xlabel="forwards (measured block work)", ylabel="LPIPS against the full video", yscale="log")
    axes.set_xlim(0, LONGEST_X)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
