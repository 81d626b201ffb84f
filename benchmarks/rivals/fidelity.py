"""Does a video still show what its prompt says? Read by the checker that the embedded model is judged by."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# training/ is a folder of scripts, not an installed package
sys.path.append(str(Path(__file__).parents[2] / "training"))

from shapes.checker import recognise
from shapes.scene import Scene, all_scenes


def attributes_right(frames: NDArray[np.uint8], prompt: str) -> float | None:
    """Return the share of colour, shape, motion and background that is as the prompt has it, None for free text.

    Parameters
    ----------
    frames : ndarray of uint8, shape (frames, height, width, 3)
    prompt : str
        The canonical caption of a scene, else nothing can be said.
    """
    scene = _scenes().get(prompt)
    if scene is None:
        return None
    return float(np.mean([seen == wanted for seen, wanted in zip(recognise(frames), scene, strict=True)]))


@cache
def _scenes() -> dict[str, Scene]:
    return {scene.caption: scene for scene in all_scenes()}
