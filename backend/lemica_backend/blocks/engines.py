"""The engines by name, and what each of them must be able to do; an engine's library loads only when it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import torch

from lemica_backend.blocks.engine_stack import Run
from lemica_backend.blocks.stack import BlockStack, Range
from lemica_backend.config import EngineName, Precision
from lemica_backend.errors import ModelLoadError

__all__ = ["BlockEngine", "Place", "engine_named", "versions"]


class Place(NamedTuple):
    """Where a stack runs, and for which sizes.

    Attributes
    ----------
    device : torch.device
    dtype : torch.dtype
    ranges : mapping of str to Range
        For every axis.
    precision : str
        ``dtype``, or what blocks or their matrices are rounded to.
    cuda_graphs : bool
        Whether kernels are recorded and replayed, where the engine can.
    """

    device: torch.device
    dtype: torch.dtype
    ranges: Mapping[str, Range]
    precision: Precision = "dtype"
    cuda_graphs: bool = False


class BlockEngine(Protocol):
    """Builds artifacts of block stacks, and runs them.

    Attributes
    ----------
    name : str
    packages : sequence of str
        Distributions whose versions an artifact depends on, the engine's own first; diffusers is always one more.
    suffix : str
        Of an artifact's file; empty for an engine that needs none.
    ranges_matter : bool
        Whether an artifact serves the ranges that it was built for only.
    dtypes : sequence of torch.dtype
    precisions : sequence of str
    devices : sequence of str
        Types of devices that run it, as torch calls them.
    builds_anywhere : bool
        Whether it builds without such a device.
    """

    name: EngineName
    packages: Sequence[str]
    suffix: str
    ranges_matter: bool
    dtypes: Sequence[torch.dtype]
    precisions: Sequence[Precision]
    devices: Sequence[str]
    builds_anywhere: bool

    def device_key(self, device: torch.device) -> str:
        """Return what an artifact depends on of the device that runs it."""
        ...

    def build(self, stack: BlockStack, place: Place, path: Path) -> None:
        """Write the artifact of a stack to `path`; offline, and as long as it takes."""
        ...

    def load(self, stack: BlockStack, place: Place, path: Path) -> Run:
        """Return what runs the artifact; no later call compiles."""
        ...


_ARITHMETIC = "diffusers"  # whose blocks a graph was made of
_MODULES: dict[EngineName, tuple[str, str]] = {
    "compile": ("compile_engine", "CompileEngine"),
    "aot": ("aot_engine", "AotEngine"),
    "onnxruntime": ("onnxruntime_engine", "OnnxRuntimeEngine"),
    "openvino": ("openvino_engine", "OpenVinoEngine"),
    "tensorrt": ("tensorrt_engine", "TensorRtEngine"),
}


def engine_named(
    name: EngineName, device: torch.device, dtype: torch.dtype, precision: Precision = "dtype", *, builds: bool = False
) -> BlockEngine:
    """Return an engine that can serve there, or at least build there.

    Raises
    ------
    ModelLoadError
        If its library is not installed, or it serves other devices or precisions; the message names them.
    """
    module, kind = _MODULES[name]
    try:
        engine = cast(BlockEngine, getattr(import_module(f"lemica_backend.blocks.{module}"), kind)())
    except ModuleNotFoundError as error:
        raise ModelLoadError(
            f"model.json, blocks.engine: {name!r} needs the package {error.name}: "
            f"pip install '.[{_extra(name)}]' in a checkout of lemica"
        ) from error
    if device.type not in engine.devices and not (builds and engine.builds_anywhere):
        served = " and ".join(engine.devices)
        raise ModelLoadError(f"model.json, blocks.engine: {name!r} serves {served} here, and the device is {device}")
    if dtype not in engine.dtypes:
        served = ", ".join(_short(each) for each in engine.dtypes)
        raise ModelLoadError(f"model.json, blocks.engine: {name!r} serves {served}, and dtype is {_short(dtype)}")
    _require_precision(engine, precision, dtype)
    return engine


def _require_precision(engine: BlockEngine, precision: Precision, dtype: torch.dtype) -> None:
    if precision not in engine.precisions:
        raise ModelLoadError(
            f"model.json, blocks.precision: {engine.name!r} serves {', '.join(engine.precisions)}, and not {precision}"
        )
    if precision != "dtype" and dtype != torch.float32:
        raise ModelLoadError(
            f"model.json, blocks.precision: {precision} takes a dtype of float32, and dtype is {_short(dtype)}"
        )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def versions(engine: BlockEngine) -> dict[str, str]:
    """Return the versions of the packages that an artifact depends on."""
    return {package: metadata.version(package) for package in (*engine.packages, _ARITHMETIC)}


def _extra(name: EngineName) -> str:
    return "tensorrt" if name == "tensorrt" else "engines"
