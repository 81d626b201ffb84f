"""Draws a chart: axes, a band and a line for each series, names beside the lines where they fit, and a legend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lemica_planner.pictures.chart import Chart, Point, Series
from lemica_planner.pictures.labels import Box, place_names
from lemica_planner.pictures.marks import Area, Dot, Label, Mark, Picture, Place, Stroke, text_width
from lemica_planner.pictures.palette import OTHERS, OURS
from lemica_planner.pictures.scale import Scale

__all__ = ["draw_chart"]

_WIDTH = 520.0
_LEFT, _TOP, _BOTTOM = 56.0, 52.0, 310.0  # of the plot
_LINES = (-1.0, 18.0, 37.0)  # of the heading, from the last one up
_WIDEST_NAME = 110.0
_SMALL, _LARGE = 13.0, 15.0
_ROW = 22.0  # of the legend
_MANY = 30  # points
_DASHES: tuple[tuple[float, ...], ...] = ((), (7, 4), (2, 3))


class _Look(NamedTuple):
    tone: str
    dash: tuple[float, ...]
    width: float


class _Drawn(NamedTuple):
    """A series with its look and the places of its values."""

    series: Series
    look: _Look
    places: tuple[Place, ...]


class _Frame(NamedTuple):
    across: Scale
    up: Scale

    def place(self, at: float, value: float) -> Place:
        return Place(self.across(at), self.up(value))


def draw_chart(chart: Chart, *, has_legend: bool = True) -> Picture:
    """Return the picture of a chart that has a point to draw (`Chart.drawable`).

    The vertical axis is logarithmic where that helps (`Chart.is_log`). Ours are thick and lie on top. With more series
    than colours, dashes tell them apart.
    """
    shown = chart.drawable()
    frame = _frame(shown, is_log=chart.is_log)
    looks = _looks(shown.series)
    drawn = [
        _Drawn(series, look, tuple(frame.place(point.at, point.value) for point in series.points))
        for series, look in zip(shown.series, looks, strict=True)
    ]
    ordered = sorted(drawn, key=lambda each: not each.series.is_ours)
    legend = list(_legend(ordered)) if has_legend else []
    heading = _heading(chart)
    marks: list[Mark] = [*heading, *_axes(frame, chart.across)]
    marks += [band for each in reversed(ordered) for band in _band(each, frame)]
    marks += [mark for each in reversed(ordered) for mark in _line(each, chart)]
    marks += [*_names(ordered, frame), *legend]
    height = max((mark.place.y for mark in legend if isinstance(mark, Label)), default=_BOTTOM + 40) + 12
    top = min(0.0, heading[0].place.y - _LINES[-2])
    return Picture(f"{chart.title} over {chart.across}", Place(0, top), _WIDTH, height - top, tuple(marks))


def _frame(chart: Chart, *, is_log: bool) -> _Frame:
    points = [point for series in chart.series for point in series.points]
    names = [_width(series) for series in chart.series]
    room = 16 + max((width for width in names if width <= _WIDEST_NAME), default=0.0)
    first, last = min(point.at for point in points), max(point.at for point in points)
    across = Scale(first, last if last > first else first + 1, _LEFT, _WIDTH - room)
    low, high = _limits(points, is_log=is_log)
    return _Frame(across, Scale(low, high, _BOTTOM, _TOP, is_log))


def _limits(points: Sequence[Point], *, is_log: bool) -> tuple[float, float]:
    """Return the ends of the vertical axis: all values with their intervals, and some air."""
    smallest, high = min(point.value for point in points), max(point.high for point in points)
    low = min(point.low for point in points)
    if is_log:
        return max(low, smallest / 2) / 1.1, high * 1.1  # the interval of a value near 0 must not stretch the axis
    air = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    return low - air, high + air


def _width(series: Series) -> float:
    return text_width(series.name, _SMALL, bold=series.is_ours)


def _looks(series: Sequence[Series]) -> list[_Look]:
    """Return a look for each series; the n-th of ours, or of the others, always looks the same."""
    counts = {True: 0, False: 0}
    looks = []
    for each in series:
        number, tones = counts[each.is_ours], OURS if each.is_ours else OTHERS
        dash = _DASHES[number // len(tones) % len(_DASHES)]
        looks.append(_Look(tones[number % len(tones)], dash, 3.4 if each.is_ours else 1.6))
        counts[each.is_ours] += 1
    return looks


def _heading(chart: Chart) -> list[Label]:
    """Return title and unit; what follows the comma of a title that is too long has a line of its own between them."""
    title, rest = chart.title, ""
    if text_width(title, _LARGE, bold=True) > _WIDTH - 8:
        title, _, rest = title.partition(", ")
    below = [text for text in (rest, chart.unit + (", log scale" if chart.is_log else "")) if text]
    first, *others = _LINES[-1 - len(below) :]
    labels = [Label(Place(4, first), title, tone="ink", size=_LARGE, bold=True)]
    labels += [Label(Place(4, y), text, size=_SMALL) for y, text in zip(others, below, strict=True)]
    return [_fitted(label) for label in labels]


def _fitted(label: Label) -> Label:
    """Return the label, smaller if it is wider than the picture."""
    share = (_WIDTH - 8) / text_width(label.text, label.size, bold=label.bold)
    return label._replace(size=label.size * share) if share < 1 else label


def _axes(frame: _Frame, across: str) -> Iterator[Mark]:
    right = frame.across.end
    for tick in frame.up.ticks(5):
        y = frame.up(tick)
        yield Stroke((Place(_LEFT, y), Place(right, y)), "line")
        yield Label(Place(_LEFT - 8, y + 4), f"{tick:g}", "end", size=_SMALL)
    yield Stroke((Place(_LEFT, _BOTTOM), Place(right, _BOTTOM)), "soft")
    for tick in frame.across.ticks(7):
        x = frame.across(tick)
        yield Stroke((Place(x, _BOTTOM), Place(x, _BOTTOM + 5)), "soft")
        yield Label(Place(x, _BOTTOM + 20), f"{tick:g}", "middle", size=_SMALL)
    yield Label(Place((_LEFT + right) / 2, _BOTTOM + 40), across, "middle", size=_SMALL)


def _band(drawn: _Drawn, frame: _Frame) -> Iterator[Mark]:
    """Yield what shows the intervals: an area, or a line where there is one point only."""
    if not drawn.series.has_intervals:
        return
    lows = [frame.place(point.at, point.low) for point in drawn.series.points]
    highs = [frame.place(point.at, point.high) for point in drawn.series.points]
    if len(lows) == 1:
        yield Stroke((*lows, *highs), drawn.look.tone, 1.5, opacity=0.6)
    else:
        yield Area((*lows, *reversed(highs)), drawn.look.tone, 0.2 if drawn.series.is_ours else 0.1)


def _line(drawn: _Drawn, chart: Chart) -> Iterator[Mark]:
    series, look, places = drawn
    yield Stroke(places, look.tone, look.width, look.dash)
    radius = 1.2 if len(places) > _MANY else 0.6 * look.width + 1.4
    for point, place in zip(series.points, places, strict=True):
        yield Dot(place, radius, look.tone, f"{series.name}, {point.at:g} {chart.across}: {_written(point)}")


def _written(point: Point) -> str:
    interval = f" ({point.low:.4g} to {point.high:.4g})" if point.low < point.high else ""
    return f"{point.value:.4g}{interval}"


def _names(drawn: Sequence[_Drawn], frame: _Frame) -> Iterator[Mark]:
    within = Box(_LEFT + 2, _TOP - 6, _WIDTH, _BOTTOM - 2)
    spots = place_names([each.places for each in drawn], [_width(each.series) for each in drawn], within, _SMALL)
    for each, spot in zip(drawn, spots, strict=True):
        if spot:
            place, anchor = spot
            yield Label(place, each.series.name, anchor, each.look.tone, _SMALL, each.series.is_ours, halo=True)


def _legend(drawn: Sequence[_Drawn]) -> Iterator[Mark]:
    """Yield a piece of each line with its name, in rows below the plot."""
    x, y = _LEFT, _BOTTOM + 68
    for series, look, _ in drawn:
        width = 38 + _width(series) + 16
        if x > _LEFT and x + width > _WIDTH:
            x, y = _LEFT, y + _ROW
        yield Stroke((Place(x, y - 4), Place(x + 30, y - 4)), look.tone, look.width, look.dash)
        yield Label(Place(x + 38, y), series.name, tone="ink", size=_SMALL, bold=series.is_ours)
        x += width
