"""Weights in fewer bits, by diffusers' own quantisers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lemica_backend.config import Quantization

__all__ = ["quantizer_arguments", "stated_hash", "torchao_type"]

_INDEX = "model_index.json"
_TYPE = "quant_type"
_KINDS = {"torchao": "TorchAoConfig", "bitsandbytes": "BitsAndBytesConfig"}  # in diffusers and in transformers


def quantizer_arguments(folder: Path, quantization: Quantization | None) -> dict[str, Any]:
    """Return what a pipeline's ``from_pretrained`` gets so that it quantises as it loads.

    Raises
    ------
    ValueError
        If the pipeline has no such component, a package is missing, or the quantiser does not take its arguments.
    """
    if quantization is None:
        return {}
    libraries = _libraries(folder, quantization.components)
    _require_package(_package(quantization))
    from diffusers.quantizers import PipelineQuantizationConfig  # noqa: PLC0415 - only where it is wanted

    mapping = {name: _configuration(quantization, library) for name, library in libraries.items()}
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping=mapping)}


def stated_hash(weights_hash: str, quantization: Quantization | None) -> str:
    """Return what a plan depends on: the hash of the stored weights, and what was made of them."""
    if quantization is None:
        return weights_hash
    made_of = json.dumps(quantization.kwargs, sort_keys=True, separators=(",", ":"))
    return f"{weights_hash}+{quantization.backend}({','.join(sorted(quantization.components))}){made_of}"


def torchao_type(quantization: Quantization) -> Any:
    """Return the configuration in ``torchao.quantization`` that ``quant_type`` names.

    Raises
    ------
    ValueError
        If torchao is not installed, has none of that name, or it does not take the arguments.
    """
    _require_package("torchao")
    known = _torchao_types()
    given = quantization.kwargs.get(_TYPE)
    name, arguments = next(iter(given.items())) if isinstance(given, dict) and len(given) == 1 else (given, {})
    if name not in known:
        raise ValueError(f"model.json, quantization.kwargs.{_TYPE}: got {given!r}; allowed are {', '.join(known)}")
    try:
        return known[name](**arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"model.json, quantization.kwargs.{_TYPE}: {name} cannot be made: {error}") from error


def _torchao_types() -> dict[str, Any]:
    from torchao.core.config import AOBaseConfig  # noqa: PLC0415 - an optional extra

    found = vars(import_module("torchao.quantization"))
    return {
        name: each
        for name, each in sorted(found.items())
        if isinstance(each, type) and issubclass(each, AOBaseConfig) and each is not AOBaseConfig
    }


def _package(quantization: Quantization) -> str:
    return quantization.backend.partition("_")[0]


def _require_package(package: str) -> None:
    if find_spec(package) is None:
        how = (
            "pip install '.[quantization]' in a checkout of lemica"
            if package == "torchao"
            else f"pip install {package}"
        )
        raise ValueError(f"model.json, quantization.backend: the package {package} is not installed: {how}")


def _libraries(folder: Path, components: tuple[str, ...]) -> dict[str, str]:
    """Return the library of each component's class."""
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    known = {
        name: origin[0]
        for name, origin in index.items()
        if name.startswith(("transformer", "text_encoder")) and isinstance(origin, list) and origin[0] is not None
    }
    for name in components:
        if known.get(name) not in ("diffusers", "transformers"):
            raise ValueError(f"model.json, quantization.components: got {name!r}; allowed are {', '.join(known)}")
    return {name: known[name] for name in components}


def _configuration(quantization: Quantization, library: str) -> Any:
    kind = getattr(import_module(library), _KINDS[_package(quantization)])
    _require_known(quantization.kwargs, kind)
    if quantization.backend == "torchao":
        return kind(**quantization.kwargs | {_TYPE: torchao_type(quantization)})
    return kind(**quantization.kwargs | {f"load_in_{quantization.backend[-4:]}": True})


def _require_known(kwargs: Mapping[str, Any], kind: Any) -> None:
    """Refuse names that the quantiser would drop, or only warn of."""
    parameters = inspect.signature(kind).parameters.values()
    allowed = sorted(
        each.name
        for each in parameters
        if each.kind is not each.VAR_KEYWORD and not each.name.startswith(("_", "load"))
    )
    for name in kwargs:
        if name not in allowed:
            raise ValueError(f"model.json, quantization.kwargs: got {name!r}; allowed are {', '.join(allowed)}")
