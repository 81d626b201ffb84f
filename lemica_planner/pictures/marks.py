"""What a picture is made of: marks with places in pixels, y downwards. Knows nothing about files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Anchor", "Area", "Cell", "Dot", "Label", "Mark", "Picture", "Place", "Stroke", "text_width"]

Anchor = Literal["start", "middle", "end"]
_WIDTH_OF_A_LETTER = 0.6  # of the font size, a mean over the letters of a wide font
_BOLD = 1.12


class Place(NamedTuple):
    """A point of a picture."""

    x: float
    y: float


class Stroke(NamedTuple):
    """A line through places. `tone` names a colour of `palette.TONES`; `budget` is what the page finds it by."""

    places: Sequence[Place]
    tone: str
    width: float = 1.0
    dash: tuple[float, ...] = ()
    opacity: float = 1.0
    hint: str = ""
    budget: int | None = None


class Area(NamedTuple):
    """A filled shape without an outline."""

    places: Sequence[Place]
    tone: str
    opacity: float = 1.0


class Cell(NamedTuple):
    """A filled square, `place` its upper left corner."""

    place: Place
    side: float
    tone: str
    hint: str


class Dot(NamedTuple):
    """A filled circle."""

    place: Place
    radius: float
    tone: str
    hint: str


class Label(NamedTuple):
    """One line of text; `turned` reads upwards, and a `halo` of the ground keeps lines off it."""

    place: Place
    text: str
    anchor: Anchor = "start"
    tone: str = "soft"
    size: float = 14.0
    bold: bool = False
    turned: bool = False
    halo: bool = False


Mark = Stroke | Area | Cell | Dot | Label


@dataclass(frozen=True)
class Picture:
    """Marks in the order in which they are drawn.

    Attributes
    ----------
    title : str
        What it shows, for those who cannot see it.
    corner : Place
        Its upper left.
    width, height : float
        In pixels.
    marks : tuple of Mark
    """

    title: str
    corner: Place
    width: float
    height: float
    marks: tuple[Mark, ...]


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return about how wide a text will be, in pixels."""
    return len(text) * size * _WIDTH_OF_A_LETTER * (_BOLD if bold else 1)
