"""Draw a scene as a short video with anti-aliased shapes (numpy only)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapes.scene import BACKGROUNDS, COLOURS, Scene

FRAMES = 16
SIZE = 80  # pixels, both sides

Array = NDArray[np.float32]


def draw(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Render one clip of `scene` with a random place, size and speed.

    Returns
    -------
    ndarray of uint8, shape (16, 80, 80, 3)
    """
    x, y, radius = _track(scene.motion, rng)
    alpha = np.clip(0.5 - _distance(scene.shape, x, y, radius), 0, 1)[..., None]
    ink = np.asarray(COLOURS[scene.colour], np.float32)
    paper = np.asarray(BACKGROUNDS[scene.background], np.float32)
    return (alpha * ink + (1 - alpha) * paper + 0.5).astype(np.uint8)


def _track(motion: str, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return centre x, centre y and radius, each of shape (frames,), in pixels (y points down)."""
    time = np.linspace(0, 1, FRAMES, dtype=np.float32)
    still = np.ones(FRAMES, np.float32)
    radius = rng.uniform(14, 17) * still
    if motion == "growing":
        x, y = rng.uniform(37, 43, 2)
        return x * still, y * still, rng.uniform(7, 8.5) + rng.uniform(14, 17) * time
    if motion == "circling":
        angle = rng.uniform(-0.5, 0.5) + 2 * np.pi * time
        orbit = rng.uniform(14, 16)
        return (
            rng.uniform(38, 42) + orbit * np.cos(angle),
            rng.uniform(38, 42) + orbit * np.sin(angle),
            radius,
        )
    along = rng.uniform(20, 23) + rng.uniform(33, 37) * time
    across = rng.uniform(35, 45) * still
    if motion in ("moving left", "moving up"):
        along = SIZE - along
    return (along, across, radius) if motion in ("moving right", "moving left") else (across, along, radius)


def _distance(shape: str, x: Array, y: Array, radius: Array) -> Array:
    """Return the signed distance in pixels to the shape's edge, negative inside, shape (frames, size, size)."""
    grid = np.arange(SIZE, dtype=np.float32) + 0.5
    dx = grid[None, None, :] - x[:, None, None]
    dy = grid[None, :, None] - y[:, None, None]
    r = radius[:, None, None]
    across, along, bar = np.abs(dx), np.abs(dy), 0.32 * r
    slant = 0.8944 * across - 0.4472 * dy - 0.49 * r  # the triangle: apex at -1.1 r, base at 0.85 r
    distances: dict[str, Array] = {
        "circle": np.hypot(dx, dy) - r,
        "square": np.maximum(across, along) - 0.88 * r,
        "triangle": np.maximum(slant, dy - 0.85 * r),
        "cross": np.minimum(np.maximum(across - r, along - bar), np.maximum(across - bar, along - r)),
    }
    return distances[shape]
