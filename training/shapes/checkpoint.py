"""Save and load the whole state of a training run, atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def save_checkpoint(path: Path, iteration: int, **parts: Any) -> None:
    """Write `iteration` and the state of `parts`; a crash never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: part.state_dict() for name, part in parts.items()}
    spare = path.with_suffix(".tmp")
    torch.save({"iteration": iteration, **state}, spare)
    spare.replace(path)


def load_checkpoint(path: Path, **parts: Any) -> int:
    """Restore `parts` from `path` if it is there; return the iteration to go on from."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["iteration"])
