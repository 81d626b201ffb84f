"""Say what a video shows, by plain image analysis: colour, background, shape, motion."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from shapes.scene import BACKGROUNDS, COLOURS, SHAPES, Scene

_SIDE = 24  # templates are compared on a grid of this many cells
_CONTRAST = 60.0  # RGB distance from the background that counts as ink

Frames = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def recognise(frames: Frames) -> Scene:
    """Return the scene that `frames` shows; an attribute that cannot be seen is ``"none"``.

    Parameters
    ----------
    frames : ndarray of uint8, shape (frames, height, width, 3)
    """
    paper = np.median(_border(frames), axis=0)
    masks = np.linalg.norm(frames.astype(np.float32) - paper, axis=-1) > _CONTRAST
    background = _nearest(paper, BACKGROUNDS)
    seen = [index for index, mask in enumerate(masks) if mask.sum() >= 20]
    if len(seen) < len(frames) // 2:
        return Scene("none", "none", "none", background)
    ink = np.median(frames[masks], axis=0)
    return Scene(_nearest(ink, COLOURS), _shape(masks[seen]), _motion(masks[seen]), background)


def _border(frames: Frames) -> Frames:
    edges = (frames[:, :3], frames[:, -3:], frames[:, :, :3], frames[:, :, -3:])
    return np.concatenate([edge.reshape(-1, 3) for edge in edges])


def _nearest(colour: NDArray[np.float64], palette: dict[str, tuple[int, int, int]]) -> str:
    names = list(palette)
    distances = np.linalg.norm(np.asarray([palette[name] for name in names]) - colour, axis=1)
    return names[int(distances.argmin())]


def _shape(masks: Mask) -> str:
    votes = Counter(_one_shape(mask) for mask in masks)
    return votes.most_common(1)[0][0]


def _one_shape(mask: Mask) -> str:
    """Return the shape whose template overlaps most with the mask, both scaled to their bounding boxes."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    pick_row = ((np.arange(_SIDE) + 0.5) / _SIDE * box.shape[0]).astype(int)
    pick_col = ((np.arange(_SIDE) + 0.5) / _SIDE * box.shape[1]).astype(int)
    scaled = box[np.ix_(pick_row, pick_col)]
    overlaps = {name: (scaled & form).sum() / (scaled | form).sum() for name, form in _TEMPLATES.items()}
    return max(overlaps, key=overlaps.__getitem__)


def _make_templates() -> dict[str, Mask]:
    grid = (np.arange(_SIDE) + 0.5) / _SIDE * 2 - 1
    x, y = np.meshgrid(grid, grid)
    forms = (
        np.hypot(x, y) <= 1,
        np.ones_like(x, bool),
        np.abs(x) <= (y + 1) / 2,
        (np.abs(x) <= 0.32) | (np.abs(y) <= 0.32),
    )
    return dict(zip(SHAPES, forms, strict=True))


_TEMPLATES = _make_templates()


def _motion(masks: Mask) -> str:
    area = masks.sum((1, 2)).astype(float)
    rows, cols = np.mgrid[: masks.shape[1], : masks.shape[2]]
    x = (masks * cols).sum((1, 2)) / area
    y = (masks * rows).sum((1, 2)) / area
    third = max(1, len(masks) // 4)
    right, down = x[-third:].mean() - x[:third].mean(), y[-third:].mean() - y[:third].mean()
    if area[-third:].mean() > 2.0 * area[:third].mean():
        return "growing"
    if _winding(x, y) > 0.6:
        return "circling"
    if max(abs(right), abs(down)) < 8:
        return "none"
    if abs(right) >= abs(down):
        return "moving right" if right > 0 else "moving left"
    return "moving down" if down > 0 else "moving up"


def _winding(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return how many turns the track makes around its own middle, 0 for a track that hardly leaves it."""
    dx, dy = x - (x.max() + x.min()) / 2, y - (y.max() + y.min()) / 2
    if min(np.ptp(x), np.ptp(y)) < 12:
        return 0.0
    turn = np.diff(np.unwrap(np.arctan2(dy, dx)))
    return float(abs(turn.sum()) / (2 * np.pi))
