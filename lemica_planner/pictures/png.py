"""Writes pictures as PNG files, in the colours for light ground. Needs matplotlib: ``pip install '.[report]'``."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon, Rectangle
from matplotlib.patheffects import withStroke

from lemica_planner.atomic import atomic_write
from lemica_planner.pictures.marks import Anchor, Area, Cell, Dot, Label, Mark, Picture, Stroke
from lemica_planner.pictures.palette import TONES

__all__ = ["save_png"]

_PIXELS_PER_INCH = 100  # of a picture
_SHARPNESS = 2  # pixels of the file for each of the picture
_POINTS = 72 / _PIXELS_PER_INCH
_ALIGNED: dict[Anchor, str] = {"start": "left", "middle": "center", "end": "right"}


def save_png(picture: Picture, path: Path) -> None:
    """Write a picture, whole or not at all; raises OSError if the file cannot be written."""
    size = (picture.width / _PIXELS_PER_INCH, picture.height / _PIXELS_PER_INCH)
    figure = Figure(figsize=size, dpi=_PIXELS_PER_INCH * _SHARPNESS, facecolor=TONES["page"].light)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(picture.corner.x, picture.corner.x + picture.width)
    axes.set_ylim(picture.corner.y + picture.height, picture.corner.y)
    for number, mark in enumerate(picture.marks):
        _draw(axes, mark, number)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def _draw(axes: Axes, mark: Mark, order: int) -> None:
    match mark:
        case Stroke():
            _draw_line(axes, mark, order)
        case Area(places, tone, opacity):
            axes.add_patch(Polygon(list(places), facecolor=TONES[tone].light, alpha=opacity, zorder=order))
        case Cell(place, side, tone, _):
            axes.add_patch(Rectangle(place, side, side, facecolor=TONES[tone].light, zorder=order))
        case Dot(place, radius, tone, _):
            axes.add_patch(Circle(place, radius, facecolor=TONES[tone].light, zorder=order))
        case Label():
            _write(axes, mark, order)


def _draw_line(axes: Axes, mark: Stroke, order: int) -> None:
    dash = (0, tuple(length / mark.width for length in mark.dash))  # matplotlib counts dashes in line widths
    axes.plot(
        [place.x for place in mark.places],
        [place.y for place in mark.places],
        color=TONES[mark.tone].light,
        linewidth=mark.width * _POINTS,
        linestyle=dash if mark.dash else "solid",
        alpha=mark.opacity,
        solid_joinstyle="round",
        zorder=order,
    )


def _write(axes: Axes, mark: Label, order: int) -> None:
    text = axes.text(
        *mark.place,
        mark.text.replace("$", r"\$"),  # no formulas
        color=TONES[mark.tone].light,
        fontsize=mark.size * _POINTS,
        fontweight="bold" if mark.bold else "normal",
        horizontalalignment=_ALIGNED[mark.anchor],
        verticalalignment="baseline",
        rotation=90 if mark.turned else 0,
        rotation_mode="anchor",
        zorder=order,
    )
    if mark.halo:
        text.set_path_effects([withStroke(linewidth=4 * _POINTS, foreground=TONES["page"].light)])
