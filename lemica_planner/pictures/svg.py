"""Writes pictures as SVG text with the colours of `palette.tones_css`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lemica_planner.pictures.marks import Area, Cell, Dot, Label, Mark, Picture, Place, Stroke

__all__ = ["draw_strip", "to_svg"]


def to_svg(picture: Picture) -> str:
    """Return a picture as an element of a page; its texts are escaped."""
    x, y = picture.corner
    return (
        f'<svg viewBox="{x:g} {y:g} {picture.width:g} {picture.height:g}" role="img" '
        f'aria-label="{escape(picture.title)}">{"".join(map(_element, picture.marks))}</svg>'
    )


def draw_strip(steps: Sequence[int], num_steps: int) -> str:
    """Return one box for each step: filled where it is computed, empty where it is reused."""
    boxes = "".join(f"M{step} 0h.8v1h-.8z" for step in steps)
    return (
        f'<svg class="strip" viewBox="0 0 {num_steps} 1" preserveAspectRatio="none" style="width:{num_steps * 5}px">'
        f'<path d="{boxes}"/></svg>'
    )


def _element(mark: Mark) -> str:
    match mark:
        case Stroke():
            return _stroke(mark)
        case Area(places, tone, opacity):
            return f'<polygon class="f-{tone}" opacity="{opacity:g}" points="{_points(places)}"/>'
        case Cell((x, y), side, tone, hint):
            box = f'x="{x:.1f}" y="{y:.1f}" width="{side:.2f}" height="{side:.2f}"'
            return f'<rect class="f-{tone}" {box}>{_title(hint)}</rect>'
        case Dot((x, y), radius, tone, hint):
            return f'<circle class="f-{tone}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}">{_title(hint)}</circle>'
        case Label():
            return _text(mark)


def _stroke(mark: Stroke) -> str:
    parts = [f'class="s-{mark.tone}" fill="none" stroke-width="{mark.width:g}" stroke-linejoin="round"']
    parts += [f'stroke-dasharray="{" ".join(map(str, mark.dash))}"'] if mark.dash else []
    parts += [f'opacity="{mark.opacity:g}"'] if mark.opacity < 1 else []
    parts += [f'data-budget="{mark.budget}"'] if mark.budget is not None else []
    return f'<polyline {" ".join(parts)} points="{_points(mark.places)}">{_title(mark.hint)}</polyline>'


def _text(mark: Label) -> str:
    x, y = mark.place
    at = f'transform="translate({x:.1f},{y:.1f}) rotate(-90)"' if mark.turned else f'x="{x:.1f}" y="{y:.1f}"'
    weight = ' font-weight="600"' if mark.bold else ""
    halo = ' paint-order="stroke" stroke-width="4"' if mark.halo else ""
    tones = f"f-{mark.tone} s-page" if mark.halo else f"f-{mark.tone}"
    look = f'class="{tones}" font-size="{mark.size:g}" text-anchor="{mark.anchor}"{weight}{halo}'
    return f"<text {at} {look}>{escape(mark.text)}</text>"


def _title(hint: str) -> str:
    return f"<title>{escape(hint)}</title>" if hint else ""


def _points(places: Sequence[Place]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
