"""LPIPS against forwards, one line a method."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from benchmarks.rivals.compare import Curve

mpl.use("Agg")

from matplotlib import pyplot as plt

LONGEST_X = 40.0


def draw(curves: Sequence[Curve], base: str, path: Path) -> None:
    """Save the figure; `base` is drawn last and thick."""
    figure, axes = plt.subplots(figsize=(11, 6.5), layout="constrained")
    styles = cycle([(colour, marker) for marker in "osv" for colour in mpl.colormaps["tab10"].resampled(10)(range(10))])
    for curve in sorted(curves, key=lambda curve: curve.method == base):
        if curve.method == base:
            _line(axes, curve, color="black", linewidth=3, marker="D", markersize=6)
        else:
            colour, marker = next(styles)
            _line(axes, curve, color=colour, linewidth=1.2, marker=marker, markersize=4)
    axes.set(xlabel="forwards (measured block work)", ylabel="LPIPS against the full video", yscale="log")
    axes.set_xlim(0, LONGEST_X)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _line(axes: Axes, curve: Curve, **style: Any) -> None:
    values = curve.values["lpips"].mean(axis=0)
    shown = (values > 0) & (curve.cost <= LONGEST_X)
    axes.plot(curve.cost[shown], np.asarray(values[shown]), label=curve.method, **style)
