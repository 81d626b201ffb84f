"""Draws an error graph: every reuse as a cell by its error, and the plans as paths over them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from lemica_planner.graph import ErrorGraph
from lemica_planner.pictures.marks import Area, Cell, Label, Mark, Picture, Place, Stroke
from lemica_planner.pictures.palette import HEAT, NAMED

__all__ = ["draw_heat_map"]

_SIDE = 620.0
_MARGIN = 76.0
_SIZE = 17.0  # of letters: the map is shown smaller than it is drawn
_FAINT = "grey"  # opaque, because many paths share an edge and would add up to black
_KEY = Place(20.0, 430.0)  # the lower left triangle holds no cell
_ROW = 27.0


class _Range(NamedTuple):
    """The smallest and the largest error above 0."""

    low: float
    high: float

    def tone(self, error: float) -> str:
        """Return the colour of an error's place between the ends, on a log scale."""
        if error <= self.low or self.high <= self.low:
            return HEAT[0]
        share = math.log(error / self.low) / math.log(self.high / self.low)
        return HEAT[min(int(share * len(HEAT)), len(HEAT) - 1)]


def draw_heat_map(graph: ErrorGraph, paths: Mapping[int, Sequence[int]], names: Mapping[str, int]) -> Picture:
    """Return the graph's reuse edges as cells, row i and column j, with the paths as stairs over them.

    Parameters
    ----------
    graph : ErrorGraph
    paths : mapping of int to sequence of int
        Computed steps by budget.
    names : mapping of str to int
        Budgets whose paths stand out; all others are faint.
    """
    cell = _SIDE / graph.num_steps
    errors = graph.weights[np.triu(np.isfinite(graph.weights), 2)]
    positive = errors[errors > 0]
    span = _Range(positive.min(), positive.max()) if positive.size else _Range(1.0, 1.0)
    tones = {budget: NAMED[number % len(NAMED)] for number, budget in enumerate(sorted(set(names.values())))}
    marks = [*_axes(graph.num_steps, cell), *_cells(graph, cell, span)]
    marks += [_path(budget, steps, cell, None) for budget, steps in paths.items() if budget not in tones]
    marks += [_path(budget, paths[budget], cell, tone) for budget, tone in tones.items()]
    marks += [*_key_of_paths(names, tones, has_others=len(paths) > len(tones)), *_key_of_errors(span)]
    side = _SIDE + _MARGIN + 12
    return Picture("heat map of the error graph", Place(-_MARGIN, -_MARGIN), side, side, tuple(marks))


def _cells(graph: ErrorGraph, cell: float, span: _Range) -> Iterator[Mark]:
    for start, end in np.argwhere(np.triu(np.isfinite(graph.weights), 2)).tolist():
        error = float(graph.weights[start, end])
        yield Cell(Place(end * cell, start * cell), cell, span.tone(error), f"{start} → {end}: {error:.4g}")


def _path(budget: int, steps: Sequence[int], cell: float, tone: str | None) -> Stroke:
    """Return the stairs of a path: from the diagonal at i over the cell (i, j) to the diagonal at j."""
    corners = [corner for step, end in pairwise(steps) for corner in ((step, step), (end, step))]
    corners.append((steps[-1], steps[-1]))
    places = [Place((x + 0.5) * cell, (y + 0.5) * cell) for x, y in corners]
    hint = f"{budget} computed steps"
    if tone is None:
        return Stroke(places, _FAINT, 0.8, hint=hint, budget=budget)
    return Stroke(places, tone, 2.6, hint=hint, budget=budget)


def _axes(num_steps: int, cell: float) -> Iterator[Mark]:
    for at in range(0, num_steps, max(1, round(num_steps / 10))):
        yield Label(Place((at + 0.5) * cell, -10), str(at), "middle", size=_SIZE)
        yield Label(Place(-10, (at + 0.5) * cell + 6), str(at), "end", size=_SIZE)
    yield Label(Place(_SIDE / 2, -44), "next computed step j", "middle", size=_SIZE)
    yield Label(Place(-48, _SIDE / 2), "computed step i, reused until j", "middle", size=_SIZE, turned=True)


def _key_of_paths(names: Mapping[str, int], tones: Mapping[int, str], *, has_others: bool) -> Iterator[Mark]:
    """Yield a piece of each named path with its name, above the key of the errors."""
    rows = [(tones[budget], 2.6, f"{name}: {budget} steps") for name, budget in names.items()]
    rows += [(_FAINT, 0.8, "every other budget")] if has_others else []
    for number, (tone, width, text) in enumerate(reversed(rows)):
        y = _KEY.y + 80 - number * _ROW
        yield Stroke((Place(_KEY.x, y - 5), Place(_KEY.x + 34, y - 5)), tone, width)
        yield Label(Place(_KEY.x + 44, y), text, tone="ink", size=_SIZE)


def _key_of_errors(span: _Range) -> Iterator[Mark]:
    top, side = _KEY.y + 110, 40.0
    for number, tone in enumerate(HEAT):
        left = _KEY.x + number * side
        yield Area([Place(left + x * side, top + y * 16) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))], tone)
    right = _KEY.x + len(HEAT) * side
    yield Label(Place(_KEY.x, top + 36), f"{span.low:.2g}", size=_SIZE)
    yield Label(Place(right, top + 36), f"{span.high:.2g}", "end", size=_SIZE)
    yield Label(Place((_KEY.x + right) / 2, top + 36), "error", "middle", size=_SIZE)
