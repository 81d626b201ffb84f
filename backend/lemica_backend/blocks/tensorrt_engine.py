"""TensorRT on NVIDIA GPUs: the library of NVIDIA's containers (``tensorrt``), or TensorRT-RTX from PyPI.

TensorRT-RTX builds without a GPU, for any GPU that it serves; ``tensorrt`` builds on a GPU, for GPUs of that kind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib import import_module, util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lemica_backend.blocks.engine_stack import Run
from lemica_backend.blocks.engines import Place
from lemica_backend.blocks.stack import BlockStack, Range, StackInput
from lemica_backend.errors import ModelLoadError

__all__ = ["TensorRtEngine"]

_FULL, _RTX = "tensorrt", "tensorrt_rtx_bindings"
_MODULE = _FULL if util.find_spec(_FULL) else _RTX
_PACKAGES = {_FULL: "tensorrt", _RTX: "tensorrt_rtx_cu13_bindings"}
_TIMING = "tensorrt.timing"  # beside the artifacts, for the next build
trt: Any = import_module(_MODULE)


class TensorRtEngine:
    """See `lemica_backend.blocks.engines.BlockEngine`."""

    name = "tensorrt"
    packages = (_PACKAGES[_MODULE], "torch")
    suffix = ".engine"
    ranges_matter = True
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    precisions = ("dtype",)
    devices = ("cuda",)
    builds_anywhere = _MODULE == _RTX

    def device_key(self, device: torch.device) -> str:
        """Return the kind of GPU that an artifact is for."""
        return "cuda" if self.builds_anywhere else torch.cuda.get_device_name(device)

    def build(self, stack: BlockStack, place: Place, path: Path) -> None:
        """Build an engine with a profile for the ranges; the graph's types are kept (strongly typed).

        Raises
        ------
        ModelLoadError
            If TensorRT cannot parse the graph or build it; the message is TensorRT's.
        """
        from lemica_backend.blocks.onnx_export import export_onnx  # noqa: PLC0415 - serving needs no onnx

        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder) / "stack.onnx"
            export_onnx(stack, next(stack.parameters()).device, graph)
            path.write_bytes(_build(stack, place.ranges, graph, path.parent.parent / _TIMING))

    def load(self, stack: BlockStack, place: Place, path: Path) -> Run:
        """Load an engine, which runs in torch's stream on torch's memory.

        Raises
        ------
        ModelLoadError
            If this GPU cannot run it; the message is TensorRT's.
        """
        log = _Log()
        with torch.cuda.device(place.device):
            runtime = trt.Runtime(log)
            engine = runtime.deserialize_cuda_engine(path.read_bytes())
            context = engine and engine.create_execution_context()
        if not context:
            raise ModelLoadError(f"{_MODULE} cannot run the block stack on this GPU: {log.said}")
        return _Runner(context, stack, place.device, keeps=(engine, runtime, log))


class _Runner:
    """Calls an execution context; called again only in the same stream, which keeps tensors alive for it."""

    def __init__(self, context: Any, stack: BlockStack, device: torch.device, *, keeps: object) -> None:
        self._context, self._inputs, self._device = context, stack.inputs, device
        self._keeps = keeps  # what the context needs as long as it lives

    def __call__(self, tensors: tuple[Tensor, ...]) -> Tensor:
        from lemica_backend.blocks.onnx_export import OUTPUT  # noqa: PLC0415

        held = [each.contiguous() for each in tensors]
        for each, tensor in zip(self._inputs, held, strict=True):
            self._context.set_input_shape(each.name, tuple(tensor.shape))
            self._context.set_tensor_address(each.name, tensor.data_ptr())
        output = torch.empty_like(held[0])
        self._context.set_tensor_address(OUTPUT, output.data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream(self._device).cuda_stream):
            raise RuntimeError("TensorRT could not start the block stack")
        return output


def _build(stack: BlockStack, ranges: Mapping[str, Range], graph: Path, timing: Path) -> bytes:
    log = _Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        faults = "; ".join(str(parser.get_error(at)) for at in range(parser.num_errors))
        raise ModelLoadError(f"{_MODULE} cannot read the block stack: {faults}")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for each in stack.inputs:
        profile.set_shape(each.name, *_profile(each, ranges))
    config.add_optimization_profile(profile)
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default: it rounds what is multiplied in float32 to 10 bits
    if _MODULE == _FULL:  # TensorRT-RTX times nothing while it builds
        _take_timings(config, timing)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise ModelLoadError(f"{_MODULE} cannot build the block stack: {log.said}")
    if _MODULE == _FULL:
        _keep_timings(config, timing)
    return bytes(built)


def _take_timings(config: Any, timing: Path) -> None:
    """Give the builder what earlier builds timed, or nothing where another version or kind of GPU did."""
    kept = timing.read_bytes() if timing.is_file() else b""
    for told in dict.fromkeys((kept, b"")):
        cache = config.create_timing_cache(told)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def _keep_timings(config: Any, timing: Path) -> None:
    cache = config.get_timing_cache()
    if cache is not None:
        timing.write_bytes(bytes(cache.serialize()))


def _profile(each: StackInput, ranges: Mapping[str, Range]) -> tuple[tuple[int, ...], ...]:
    """Return the least, the usual and the largest shape; the usual one has two rows and the longest text."""
    least = {axis: span.least for axis, span in ranges.items()}
    most = {axis: span.most for axis, span in ranges.items()}
    usual = {**most, "rows": min(2, most["rows"])}
    return each.sized(least), each.sized(usual), each.sized(most)


class _Log(trt.ILogger):  # type: ignore[misc]  # its base has no types
    """Keeps what TensorRT says of faults."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._said: list[str] = []

    @property
    def said(self) -> str:
        """The last faults."""
        return "; ".join(self._said[-3:]) or "it does not say why"

    def log(self, severity: Any, message: str) -> None:
        """Take note of errors."""
        if severity <= trt.ILogger.Severity.ERROR:
            self._said.append(message)
