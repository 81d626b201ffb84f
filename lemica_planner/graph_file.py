"""Read a graph of either kind from its ``.npz`` file."""

from __future__ import annotations

import os
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemica_planner.errors import InvalidGraphError
from lemica_planner.graph import ErrorGraph
from lemica_planner.operator_graph import OperatorGraph

__all__ = ["load_graph"]


def load_graph(path: str | os.PathLike[str]) -> ErrorGraph | OperatorGraph:
    """Return what a calibration wrote to `path`.

    Raises
    ------
    InvalidGraphError
        If the file is no graph.
    OSError
        If it cannot be read.
    """
    arrays = _read(path)
    if "measured" in arrays:
        return OperatorGraph.from_arrays(arrays, os.fspath(path))
    return ErrorGraph.load(path)


def _read(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file.items())
    except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as exc:
        raise InvalidGraphError(
            f"{os.fspath(path)} is no error graph: {exc}; give a graph.npz that `lemica-planner calibrate` wrote"
        ) from exc
