"""Scenes, the captions that describe them, and the split into trained and held-out scenes."""

from __future__ import annotations

import random
from itertools import product
from typing import NamedTuple

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "white": (255, 255, 255),
    "orange": (255, 128, 0),
}
BACKGROUNDS = {"black": (0, 0, 0), "navy": (0, 0, 112), "maroon": (112, 0, 0), "forest": (24, 88, 32)}
SHAPES = ("circle", "square", "triangle", "cross")
MOTIONS = ("moving right", "moving left", "moving up", "moving down", "circling", "growing")

_MOTION_WORDS = {
    "moving right": ("moving right", "going right", "sliding to the right", "moving rightwards"),
    "moving left": ("moving left", "going left", "sliding to the left", "moving leftwards"),
    "moving up": ("moving up", "going up", "rising", "moving upwards"),
    "moving down": ("moving down", "going down", "falling", "moving downwards"),
    "circling": ("circling", "orbiting", "going round and round"),
    "growing": ("growing", "getting bigger", "expanding"),
}
_TEMPLATES = (
    "{c} {s} {m}, {b} background",
    "on a {b} background, a {c} {s} {m}",
    "video of a {c} {s} {m} over {b}",
    "the {s} is {c} and it is {m}, the background is {b}",
    "a {c} {s}, {m}, against a {b} backdrop",
)


class Scene(NamedTuple):
    """What a caption says and the checker must find again."""

    colour: str
    shape: str
    motion: str
    background: str

    @property
    def caption(self) -> str:
        """The canonical caption."""
        return f"a {self.colour} {self.shape} {self.motion} on a {self.background} background"


def all_scenes() -> list[Scene]:
    """Return all 768 scenes in a fixed order."""
    return [Scene(*parts) for parts in product(COLOURS, SHAPES, MOTIONS, BACKGROUNDS)]


def split_scenes() -> tuple[list[Scene], list[Scene]]:
    """Return (trained, held out): a fixed fifth of the scenes is never shown in training."""
    scenes = all_scenes()
    random.Random(20511).shuffle(scenes)
    held_out = len(scenes) // 5
    return scenes[held_out:], scenes[:held_out]


def paraphrase(scene: Scene, rng: random.Random) -> str:
    """Return the canonical caption half of the time, else a paraphrase; the case is random."""
    if rng.random() < 0.5:
        text = scene.caption
    else:
        motion = rng.choice(_MOTION_WORDS[scene.motion])
        text = rng.choice(_TEMPLATES).format(c=scene.colour, s=scene.shape, m=motion, b=scene.background)
    return rng.choice((str.lower, str.lower, str.upper, str.title, str.capitalize))(text)
