"""Finds room for the names of curves beside them, so that no two names and no name and curve lie on each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from lemica_planner.pictures.marks import Anchor, Place

__all__ = ["Box", "place_names"]

_SAMPLED = 4.0  # pixels between the looks at a curve
_ASIDE = 8.0
_NUDGES = (0.0, -5.0, 5.0, -10.0, 10.0)


class Box:
    """A rectangle of a picture.

    Parameters
    ----------
    left, top, right, bottom : float
        In pixels.
    """

    def __init__(self, left: float, top: float, right: float, bottom: float) -> None:
        self.left, self.top, self.right, self.bottom = left, top, right, bottom

    def holds(self, place: Place) -> bool:
        """Return whether a place lies in it."""
        return self.left < place.x < self.right and self.top < place.y < self.bottom

    def is_inside(self, other: Box) -> bool:
        """Return whether all of it lies in another."""
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.top <= self.top
            and self.bottom <= other.bottom
        )

    def overlaps(self, other: Box) -> bool:
        """Return whether they share a part."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def place_names(
    curves: Sequence[Sequence[Place]], widths: Sequence[float], within: Box, size: float
) -> list[tuple[Place, Anchor] | None]:
    """Return for each curve where its name fits, None where it fits nowhere.

    Parameters
    ----------
    curves : sequence of sequence of Place
        The name of the first is placed first.
    widths : sequence of float
        Of the names, in pixels.
    within : Box
        Where names may stand.
    size : float
        Of the letters, in pixels.
    """
    sampled = [place for places in curves for place in _sampled(places)]
    found: list[tuple[Place, Anchor] | None] = []
    taken: list[Box] = []
    for places, width in zip(curves, widths, strict=True):
        spots = [(_box(*spot, width, size), spot) for spot in _spots(places)]
        free = (each for each in spots if each[0].is_inside(within) and _is_free(each[0], taken, sampled))
        box, spot = next(free, (None, None))
        taken += [box] if box else []
        found.append(spot)
    return found


def _is_free(box: Box, taken: Sequence[Box], sampled: Sequence[Place]) -> bool:
    return not any(map(box.overlaps, taken)) and not any(map(box.holds, sampled))


def _spots(places: Sequence[Place]) -> Iterator[tuple[Place, Anchor]]:
    """Yield places for a name, the best first: right of the curve's end, left of its beginning, above or below it."""
    first, last = places[0], places[-1]
    for nudge in _NUDGES:
        yield Place(last.x + _ASIDE, last.y + 4 + nudge), "start"
    for nudge in _NUDGES:
        yield Place(first.x - _ASIDE, first.y + 4 + nudge), "end"
    middles = [places[len(places) * part // 4] for part in (1, 2, 3)]
    for place in (last, first, *middles):
        for offset in (-_ASIDE, _ASIDE + 10):
            yield Place(place.x, place.y + offset), "middle"


def _box(place: Place, anchor: Anchor, width: float, size: float) -> Box:
    left = place.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor] * width
    return Box(left - 2, place.y - 0.8 * size, left + width + 2, place.y + 0.25 * size)


def _sampled(places: Sequence[Place]) -> Iterator[Place]:
    yield places[-1]
    for start, end in pairwise(places):
        looks = max(1, math.ceil(math.dist(start, end) / _SAMPLED))
        for look in range(looks):
            share = look / looks
            yield Place(start.x + share * (end.x - start.x), start.y + share * (end.y - start.y))
