"""What the backend reads from, adds to and refuses in a model's Triton configuration (config.pbtxt)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lemica_backend.errors import ModelLoadError
from lemica_backend.protocol import INPUTS, OUTPUTS, STREAM_INPUTS, TensorSpec

PLAN_PARAMETER = "cache_plan"
METRICS_PARAMETER = "REPORT_CUSTOM_METRICS"  # the name and the values that Triton's vLLM backend has
DEFAULT_MAX_BATCH_SIZE = 4

Config = Mapping[str, Any]


class AutoCompletable(Protocol):
    """The part of Triton's ModelConfig helper that is needed here."""

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration."""

    def add_input(self, input: dict[str, Any]) -> None:
        """Add an input, or check the one that is there."""

    def add_output(self, output: dict[str, Any]) -> None:
        """Add an output, or check the one that is there."""

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Set the largest batch."""

    def set_dynamic_batching(self) -> None:
        """Let Triton merge requests."""


def complete_config(config: AutoCompletable) -> None:
    """Fill in what a config.pbtxt leaves out, down to a lone ``backend: "lemica"``.

    A maximal batch size of 0 is Triton's word both for none and for none given: it counts as
    given where tensors are declared, since their shapes tell.

    Raises
    ------
    ModelLoadError
        If what it says does not fit the backend.
    """
    given = config.as_dict()
    check_config(given)
    if not is_decoupled(given) and not given["max_batch_size"] and not given["input"] and not given["output"]:
        config.set_max_batch_size(DEFAULT_MAX_BATCH_SIZE)
    if config.as_dict()["max_batch_size"]:
        config.set_dynamic_batching()
    for spec in inputs_of(given):
        config.add_input(spec.as_config() | {"optional": not spec.required})
    for spec in OUTPUTS:
        config.add_output(spec.as_config())


def check_config(config: Config) -> None:
    """Refuse a configuration that the backend cannot serve.

    Raises
    ------
    ModelLoadError
        If a tensor is unknown or declared otherwise than in the protocol's table, or a scheduler or parameter
        is not known.
    """
    for kind, specs in (("input", inputs_of(config)), ("output", OUTPUTS)):
        for declared in config.get(kind, ()):
            _check_tensor(kind, declared, specs)
    if is_decoupled(config) and config.get("max_batch_size"):
        raise _error(f"max_batch_size is {config['max_batch_size']}; a decoupled model takes single requests only: 0")
    for scheduler in ("sequence_batching", "ensemble_scheduling"):
        if scheduler in config:
            raise _error(f"{scheduler} is not supported; allowed is dynamic_batching")
    for name in config.get("parameters", {}):
        # Triton's own switches, such as FORCE_CPU_ONLY_INPUT_TENSORS, are upper case
        if name != PLAN_PARAMETER and not name.isupper():
            raise _error(f"unknown parameter {name!r}; allowed is {PLAN_PARAMETER} (the rest is set in model.json)")
    reports_metrics(config)


def is_decoupled(config: Config) -> bool:
    """Whether the model sends progress before its answer."""
    return bool(config.get("model_transaction_policy", {}).get("decoupled"))


def inputs_of(config: Config) -> tuple[TensorSpec, ...]:
    """Return the inputs that the model takes."""
    return STREAM_INPUTS if is_decoupled(config) else INPUTS


def cache_plan(config: Config) -> str | None:
    """Return the JSON of the cache plan; None if there is none."""
    parameter = config.get("parameters", {}).get(PLAN_PARAMETER, {})
    return parameter.get("string_value") or None


def reports_metrics(config: Config) -> bool:
    """Return whether the model has metrics of its own: unless the parameter is ``no``."""
    given = config.get("parameters", {}).get(METRICS_PARAMETER, {}).get("string_value") or "yes"
    if given not in ("yes", "no"):
        raise _error(f"parameter {METRICS_PARAMETER} is {given!r}; allowed are 'yes', which is the default, and 'no'")
    return bool(given == "yes")


def version_dir(args: Mapping[str, str]) -> Path:
    """Return the folder of the model's version, where model.json and the weights are."""
    return Path(args["model_repository"]) / args["model_version"]


def instance_device(args: Mapping[str, str]) -> str:
    """Return the device that ``auto`` stands for in this instance: the GPU that Triton gave it, if it did."""
    return f"cuda:{args['model_instance_device_id']}" if args["model_instance_kind"] == "GPU" else "auto"


def _check_tensor(kind: str, declared: Config, specs: Sequence[TensorSpec]) -> None:
    known = {spec.name: spec for spec in specs}
    name = declared["name"]
    if name not in known:
        raise _error(f"unknown {kind} {name!r}; allowed are {', '.join(known)}")
    spec = known[name]
    dims = [int(dim) for dim in declared.get("dims", ())]
    if declared["data_type"] not in (spec.triton_type, "TYPE_INVALID"):
        raise _error(f"{kind} {name} is declared {declared['data_type']}; allowed is {spec.triton_type}")
    if dims and dims != list(spec.dims):
        raise _error(f"{kind} {name} is declared with dims {dims}; allowed is {list(spec.dims)}")
    if kind == "input" and declared["data_type"] != "TYPE_INVALID" and declared["optional"] == spec.required:
        raise _error(f"input {name} must be declared optional: {str(not spec.required).lower()}")


def _error(message: str) -> ModelLoadError:
    return ModelLoadError(f"config.pbtxt: {message}")
