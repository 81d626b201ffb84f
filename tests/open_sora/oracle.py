"""Tensors that the official implementation made of small random weights; they are not part of this repository.

``LEMICA_ORACLES`` names the folder that holds them, in a folder ``stdit3``.
"""

import json
import os
from functools import cache
from pathlib import Path

import pytest
from safetensors.torch import load_file

_FOLDER = os.environ.get("LEMICA_ORACLES")

needs_oracle = pytest.mark.skipif(
    not _FOLDER or not (Path(_FOLDER) / "stdit3").is_dir(),
    reason="LEMICA_ORACLES names no folder with stdit3/, the tensors of the official implementation",
)


@cache
def tensors(name):
    return load_file(Path(_FOLDER) / "stdit3" / f"{name}.safetensors")


@cache
def facts(name):
    return json.loads((Path(_FOLDER) / "stdit3" / f"{name}.json").read_text())


def case(file, name):
    """Return the tensors of one case, without its name."""
    return {key.partition(".")[2]: value for key, value in tensors(file).items() if key.partition(".")[0] == name}
