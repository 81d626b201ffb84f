"""Put the engine that ``model.json`` names into a loaded model, or build its artifact."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lemica_backend.blocks.agreement import require_agreement
from lemica_backend.blocks.artifacts import Artifact, Identity, find_artifact, write_artifact
from lemica_backend.blocks.engine_stack import EngineStack
from lemica_backend.blocks.engines import BlockEngine, Place, engine_named, versions
from lemica_backend.blocks.stack import ROWS, TEXT, BlockStack, Range
from lemica_backend.config import Blocks, EngineName, ModelConfig
from lemica_backend.errors import ModelLoadError

__all__ = ["Built", "build_engine", "install_engine"]

_BRANCHES = 2  # of a request, in most families
_log = logging.getLogger(__name__)


class Built(NamedTuple):
    """What `build_engine` made, or found made.

    Attributes
    ----------
    artifact : Artifact or None
        None for an engine that needs none.
    place : Place
    seconds : float
    is_new : bool
    """

    artifact: Artifact | None
    place: Place
    seconds: float
    is_new: bool


def install_engine(model: Any, model_dir: Path, config: ModelConfig) -> None:
    """Let the engine that ``blocks.engine`` names run the model's block stacks.

    Where it cannot and ``blocks.required`` is false, the eager one goes on and the log says why.

    Raises
    ------
    ModelLoadError
        If the engine cannot serve the model, or there is no artifact that fits.
    """
    if config.blocks.engine == "eager":
        return
    try:
        _install(model, model_dir, config)
    except ModelLoadError as error:
        if config.blocks.required:
            raise
        _log.warning("the eager engine runs the block stack: %s", error)


def _install(model: Any, model_dir: Path, config: ModelConfig) -> None:
    started = time.perf_counter()
    target = _Target.of(model, config, config.blocks.engine)
    artifact = find_artifact(_root(model_dir, config.blocks), target.identity()) if target.engine.suffix else None
    files = artifact.files if artifact else (Path(),) * len(target.stacks)
    try:
        model.stacks = [
            EngineStack(stack, target.engine.load(stack, place, file), place.ranges)
            for stack, place, file in zip(target.stacks, target.places, files, strict=True)
        ]
    except ModelLoadError:
        raise
    except Exception as error:  # whatever an engine's library raises
        raise ModelLoadError(f"{target.engine.name} cannot load the block stack: {error}") from error
    model.info = dataclasses.replace(model.info, block_engine=target.label)
    _log.info("%s runs the block stack, loaded in %.1f s", target.label, time.perf_counter() - started)


def build_engine(model: Any, model_dir: Path, config: ModelConfig, name: EngineName, *, force: bool = False) -> Built:
    """Build an engine's artifact beside ``model.json``, unless it is there.

    Parameters
    ----------
    model : VideoModel
        With its own, eager stacks.
    model_dir : Path
        The version folder.
    config : ModelConfig
    name : str
    force : bool
        Whether to build again what is there.

    Raises
    ------
    ModelLoadError
        If the engine cannot serve the model, fails, or its results are too far off.
    """
    target, root = _Target.of(model, config, name, builds=True), _root(model_dir, config.blocks)
    if not target.engine.suffix:
        return Built(None, target.places[0], 0.0, is_new=False)
    if not force:
        try:
            return Built(find_artifact(root, target.identity()), target.places[0], 0.0, is_new=False)
        except ModelLoadError as error:
            _log.info("%s", error)
    started = time.perf_counter()
    names = [f"stack{index}{target.engine.suffix}" for index in range(len(target.stacks))]
    artifact = write_artifact(root, target.identity(), names, target.build)
    return Built(artifact, target.places[0], time.perf_counter() - started, is_new=True)


class _Target(NamedTuple):
    """An engine and the stacks that it is for."""

    engine: BlockEngine
    stacks: tuple[BlockStack, ...]
    places: tuple[Place, ...]
    info: Any

    @classmethod
    def of(cls, model: Any, config: ModelConfig, name: EngineName, *, builds: bool = False) -> _Target:
        stacks = tuple(model.stacks)
        weight = next(stacks[0].parameters())
        dtype, precision = getattr(torch, config.dtype), config.blocks.precision
        engine = engine_named(name, weight.device, dtype, precision, builds=builds)
        graphs = config.blocks.cuda_graphs
        places = tuple(Place(weight.device, dtype, _ranges(each, config), precision, graphs) for each in stacks)
        return cls(engine, stacks, places, model.info)

    @property
    def label(self) -> str:
        """The engine's name, with the precision where that is not the model's."""
        precision = self.places[0].precision
        return self.engine.name if precision == "dtype" else f"{self.engine.name}-{precision}"

    def identity(self) -> Identity:
        place = self.places[0]
        return Identity(
            engine=self.engine.name,
            dtype=str(place.dtype).removeprefix("torch."),
            precision=place.precision,
            device=self.engine.device_key(place.device),
            family=self.info.family,
            weights_hash=self.info.weights_hash,
            inputs=[[[each.name, each.shape, str(each.dtype)] for each in stack.inputs] for stack in self.stacks],
            ranges=place.ranges if self.engine.ranges_matter else None,
            versions=versions(self.engine),
        )

    def build(self, paths: Sequence[Path]) -> float | None:
        """Write the artifact's files; return how far the results are off, if they can be had here."""
        worst, runs_here = 0.0, self.places[0].device.type in self.engine.devices
        for stack, place, path in zip(self.stacks, self.places, paths, strict=True):
            self.engine.build(stack, place, path)
            if runs_here:
                worst = max(worst, require_agreement(stack, self.engine.load(stack, place, path), place))
        return worst if runs_here else None


def _root(model_dir: Path, blocks: Blocks) -> Path:
    return model_dir / blocks.artifacts


def _ranges(stack: BlockStack, config: ModelConfig) -> Mapping[str, Range]:
    """Return the sizes that the engine serves: the model's own, within what ``model.json`` says."""
    blocks, text = config.blocks, stack.served[TEXT]
    most = min(text.most, blocks.max_text_tokens or text.most)
    rows = blocks.max_rows or _BRANCHES * config.limits.max_active
    return {**stack.served, ROWS: Range(1, rows), TEXT: Range(min(text.least, most), most)}
