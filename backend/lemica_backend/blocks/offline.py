"""Build an engine's artifact for a model folder, and say what it or quantised weights change, as the commands do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from lemica_backend.blocks.installing import Built, build_engine
from lemica_backend.blocks.quality import Change, measure_change
from lemica_backend.config import MODEL_FILE, Blocks, EngineName, ModelConfig, Precision, load_config
from lemica_backend.errors import ModelLoadError
from lemica_backend.opening import open_model
from lemica_planner import CachePlan, ConfigError
from lemica_planner.config_writer import read_plan

__all__ = ["build_offline", "change_of_weights", "change_offline"]

_VERSION = "1"
_CONFIG_FILE = "config.pbtxt"


def build_offline(
    model_dir: Path, engine: str | None = None, precision: str | None = None, *, force: bool = False
) -> tuple[EngineName, Built]:
    """Load a model and build the artifact of an engine.

    Parameters
    ----------
    model_dir : Path
        The model's folder, or its version folder.
    engine, precision : str, optional
        By default what ``model.json`` names.
    force : bool
        Whether to build again what is there.

    Raises
    ------
    ModelLoadError
        If there is no such engine or precision, or what `lemica_backend.blocks.installing.build_engine` raises.
    """
    folder = _version_folder(model_dir)
    config = _configured(folder, engine, precision)
    # the sampler is no matter of the blocks
    model = open_model(folder, config.model_copy(update={"blocks": Blocks(), "scheduler": None}))
    return config.blocks.engine, build_engine(model, folder, config, config.blocks.engine, force=force)


def change_offline(model_dir: Path, engine: str | None, precision: str | None, prompts: Sequence[str]) -> Change:
    """Return what an engine, whose artifact is there, changes in videos, beside what the model's plan does.

    Parameters are as for `build_offline`, and `prompts` is not empty.

    Raises
    ------
    LemicaError, PlannerError
        If the model, its plan or a prompt cannot be used.
    """
    folder = _version_folder(model_dir)
    return measure_change(folder, _configured(folder, engine, precision), prompts, _plan(folder.parent / _CONFIG_FILE))


def change_of_weights(model_dir: Path, prompts: Sequence[str]) -> Change:
    """Return what a model's quantised weights change in videos, beside what the model's plan does.

    Raises
    ------
    ModelLoadError
        If ``model.json`` has no quantization.
    LemicaError, PlannerError
        If the model, its plan or a prompt cannot be used.
    """
    folder = _version_folder(model_dir)
    config = load_config(folder / MODEL_FILE).model_copy(update={"blocks": Blocks()})
    if config.quantization is None:
        raise ModelLoadError(f"{folder / MODEL_FILE}: there is no quantization, so there is nothing to compare")
    return measure_change(folder, config, prompts, _plan(folder.parent / _CONFIG_FILE))


def _version_folder(model_dir: Path) -> Path:
    return model_dir if (model_dir / MODEL_FILE).is_file() else model_dir / _VERSION


def _configured(folder: Path, engine: str | None, precision: str | None) -> ModelConfig:
    config = load_config(folder / MODEL_FILE)
    engines = [each for each in get_args(EngineName) if each != "eager"]
    wanted = {
        "engine": _one_of("engine", engine or config.blocks.engine, engines),
        "precision": _one_of("precision", precision or config.blocks.precision, get_args(Precision)),
    }
    return config.model_copy(update={"blocks": config.blocks.model_copy(update=wanted)})


def _one_of(what: str, got: str, allowed: Sequence[str]) -> str:
    if got not in allowed:
        raise ModelLoadError(f"{what} is {got!r}; allowed are {', '.join(allowed)}: name one with --{what}")
    return got


def _plan(config_path: Path) -> CachePlan | None:
    try:
        return read_plan(config_path)
    except (ConfigError, FileNotFoundError):
        return None
