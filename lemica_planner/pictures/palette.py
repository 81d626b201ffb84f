"""Every colour of the report, by name: for light ground and for dark."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["HEAT", "NAMED", "OTHERS", "OURS", "TONES", "Tone", "tones_css"]


class Tone(NamedTuple):
    """One colour on light ground, as in every PNG, and on dark."""

    light: str
    dark: str


TONES = {
    "ink": Tone("#1f2933", "#e5e9ee"),
    "soft": Tone("#52606d", "#9aa5b1"),
    "line": Tone("#d9dee4", "#3a434d"),
    "page": Tone("#ffffff", "#14181d"),
    "pick": Tone("#c2410c", "#fb923c"),
    "blue": Tone("#1f64b0", "#5ea0ea"),
    "navy": Tone("#1e2f75", "#a9b9ff"),
    "sky": Tone("#0284c7", "#38bdf8"),
    "orange": Tone("#d97706", "#f59e0b"),
    "grey": Tone("#7b8794", "#a3adb8"),
    "green": Tone("#2f8f2f", "#6cc46c"),
    "magenta": Tone("#c0267e", "#f075b6"),
    "violet": Tone("#7c3aed", "#b794f6"),
    "brown": Tone("#8a5a2b", "#c99b6b"),
    "red": Tone("#b91c1c", "#f87171"),
    "teal": Tone("#0f8b8d", "#4fd1c5"),
    "heat0": Tone("#eef4fb", "#eef4fb"),
    "heat1": Tone("#c5dbf2", "#c5dbf2"),
    "heat2": Tone("#8db9e4", "#8db9e4"),
    "heat3": Tone("#4f8fd0", "#4f8fd0"),
    "heat4": Tone("#1f64b0", "#1f64b0"),
    "heat5": Tone("#0c3d7d", "#0c3d7d"),
}
HEAT = tuple(name for name in TONES if name.startswith("heat"))  # small to large error
OURS = ("blue", "sky", "navy")
OTHERS = ("orange", "green", "magenta", "grey", "violet", "brown", "teal", "red")
NAMED = ("magenta", "green", "violet", "teal", "brown")  # the paths of named budgets, on blue cells


def tones_css() -> str:
    """Return variables for all colours, which follow the reader's choice of light or dark, and classes that use them.

    ``s-NAME`` draws with a colour, ``f-NAME`` fills with it.
    """
    light = "".join(f"--{name}:{tone.light};" for name, tone in TONES.items())
    dark = "".join(f"--{name}:{tone.dark};" for name, tone in TONES.items())
    uses = "".join(f".s-{name}{{stroke:var(--{name})}}.f-{name}{{fill:var(--{name})}}" for name in TONES)
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}{uses}"
