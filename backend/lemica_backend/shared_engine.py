"""A ``model.json`` that names another model, whose engine its own model shares: ``{"engine": "latte_shapes"}``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from lemica_backend.config import MODEL_FILE, ModelConfig, load_config
from lemica_backend.errors import ModelLoadError
from lemica_backend.section import Section, validate_json
from lemica_backend.triton_config import cache_plan
from lemica_planner import ConfigError, PlannerError

CONFIG_FILE = "config.pbtxt"


class EngineReference(Section):
    """The whole of such a ``model.json``.

    Attributes
    ----------
    engine : str
        A model of the same repository.
    """

    engine: Annotated[str, Field(pattern=r"^[^/.][^/]*$")]


class EngineFolder(NamedTuple):
    """Where a model's engine comes from.

    Attributes
    ----------
    model_dir : Path
        The version folder with the weights.
    config : ModelConfig
    is_own : bool
        Whether that is the model's own folder.
    """

    model_dir: Path
    config: ModelConfig
    is_own: bool


def find_engine(version_dir: Path) -> EngineFolder:
    """Read a model's ``model.json``, and that of the model which it names, if it does.

    Raises
    ------
    ModelLoadError
        If a file is broken, or the named model is not there or names another one itself.
    """
    path = version_dir / MODEL_FILE
    if not _is_reference(path):
        return EngineFolder(version_dir, load_config(path), is_own=True)
    name = validate_json(EngineReference, path).engine
    model_dir = _newest_version(version_dir.parent.parent / name, path)
    if _is_reference(model_dir / MODEL_FILE):
        raise ModelLoadError(f"{path}: engine is {name!r}, which itself names another model; name that one")
    return EngineFolder(model_dir, load_config(model_dir / MODEL_FILE), is_own=False)


def plan_in_file(model_dir: Path) -> str | None:
    """Return the plan in the ``config.pbtxt`` of a version folder's model; None if there is none.

    Raises
    ------
    ModelLoadError
        If the file is broken.
    """
    from lemica_planner.config_writer import PARAMETER, read_plan  # noqa: PLC0415 - it loads gRPC

    path = model_dir.parent / CONFIG_FILE
    if not path.is_file() or PARAMETER not in path.read_text(encoding="utf-8", errors="replace"):
        return None
    try:
        return read_plan(path).to_json()
    except (ConfigError, PlannerError) as error:
        raise ModelLoadError(f"{path}: {error}") from error


def front_plan(engine: EngineFolder, config: Mapping[str, Any]) -> str | None:
    """Return the plan with which a front attaches: of its configuration, or, at another's engine, of that one's file.

    Raises
    ------
    ModelLoadError
        If a model that shares an engine has a plan of its own, or a file is broken.
    """
    own = cache_plan(config)
    if engine.is_own:
        return own
    if own:
        raise ModelLoadError(
            f"config.pbtxt: a cache_plan here would not be served: the plan is that of {engine.model_dir.parent.name}; "
            "put it there"
        )
    return plan_in_file(engine.model_dir)


def _is_reference(path: Path) -> bool:
    """Whether the file names an engine; what is broken is said by who reads it in earnest."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "engine" in found


def _newest_version(folder: Path, asked_by: Path) -> Path:
    versions = [path.parent for path in folder.glob(f"*/{MODEL_FILE}") if path.parent.name.isdigit()]
    if not versions:
        raise ModelLoadError(f"{asked_by}: engine is {folder.name!r}, but there is no {folder}/1/{MODEL_FILE}")
    return max(versions, key=lambda version: int(version.name))
