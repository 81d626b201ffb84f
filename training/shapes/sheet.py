"""Pictures of clips: a few of their frames side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


def film_strip(frames: Frames, columns: int) -> Frames:
    """Return `columns` frames of a clip, evenly spaced in time, as one picture: shape (height, columns * width, 3)."""
    chosen = frames[np.linspace(0, len(frames) - 1, columns).astype(int)]
    return np.concatenate(list(chosen), axis=1)
