"""OpenVINO on CPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino
import torch
from numpy.typing import NDArray
from openvino.preprocess import PrePostProcessor
from torch import Tensor

from lemica_backend.blocks.engine_stack import Run
from lemica_backend.blocks.engines import Place
from lemica_backend.blocks.stack import ROWS, BlockStack
from lemica_backend.config import Precision
from lemica_backend.errors import ModelLoadError

__all__ = ["OpenVinoEngine"]

_ROWS_OF_ONE = (1, 2)  # request, without guidance and with it
_COPIED_BYTES = 1 << 28  # of weights, at most, that are held once more for each of them


class OpenVinoEngine:
    """See `lemica_backend.blocks.engines.BlockEngine`."""

    name = "openvino"
    packages = ("openvino", "torch")
    suffix = ".onnx"
    ranges_matter = False
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    precisions = ("dtype", "bfloat16")
    devices = ("cpu",)
    builds_anywhere = False

    def device_key(self, device: torch.device) -> str:
        """Return the type of the device."""
        return device.type

    def build(self, stack: BlockStack, place: Place, path: Path) -> None:
        """Export the graph."""
        from lemica_backend.blocks.onnx_export import export_onnx  # noqa: PLC0415 - serving needs no onnx

        _precision_hint(openvino.Core(), place.precision)  # refuses before the minutes that an export may take
        export_onnx(stack, place.device, path)

    def load(self, stack: BlockStack, place: Place, path: Path) -> Run:
        """Compile the graph for this processor, to as many threads as torch has."""
        core = openvino.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _precision_hint(core, place.precision),
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # torch's threads are not pinned either, and would wait for the same cores
        }
        graph = _with_numpy_types(core.read_model(path), stack, place.dtype)
        any_rows = core.compile_model(graph, "CPU", settings).create_infer_request()
        fixed = {
            rows: core.compile_model(_with_rows(graph, stack, rows), "CPU", settings).create_infer_request()
            for rows in _rows_to_fix(stack, place)
        }
        names = [each.name for each in stack.inputs]

        def run(tensors: tuple[Tensor, ...]) -> Tensor:
            feed = {name: _array(each) for name, each in zip(names, tensors, strict=True)}
            request = fixed.get(len(tensors[0]), any_rows)
            output = torch.from_numpy(request.infer(feed, share_inputs=True)[0])  # a copy: later runs leave it alone
            return output.to(place.dtype)

        return run


def _precision_hint(core: openvino.Core, precision: Precision) -> str:
    """Return what OpenVINO calls the precision; left to itself, it rounds to bfloat16 wherever a processor has that."""
    if precision == "dtype":
        return "f32"
    served = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in served:  # it would compute in float32, and say nothing
        raise ModelLoadError(
            f"model.json, blocks.precision: this processor has no bfloat16 (OpenVINO finds {', '.join(served)}): "
            "take dtype"
        )
    return "bf16"


def _rows_to_fix(stack: BlockStack, place: Place) -> tuple[int, ...]:
    """Return numbers of rows that get code of their own, which fuses more; each holds the weights once more."""
    weights = sum(each.nbytes for each in stack.parameters())
    return tuple(rows for rows in _ROWS_OF_ONE if rows in place.ranges[ROWS]) if weights <= _COPIED_BYTES else ()


def _with_rows(graph: Any, stack: BlockStack, rows: int) -> Any:
    fixed = graph.clone()
    fixed.reshape(
        {
            each.name: [rows if axis == ROWS else axis if isinstance(axis, int) else -1 for axis in each.shape]
            for each in stack.inputs
        }
    )
    return fixed


def _with_numpy_types(graph: Any, stack: BlockStack, dtype: torch.dtype) -> Any:
    """Let float32 go in and out where the graph has bfloat16, which numpy has not; that rounds nothing."""
    edges = PrePostProcessor(graph)
    for index, each in enumerate(stack.inputs):
        if each.dtype == torch.bfloat16:
            edges.input(index).tensor().set_element_type(openvino.Type.f32)
    if dtype == torch.bfloat16:
        edges.output().tensor().set_element_type(openvino.Type.f32)
    return edges.build()


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()
    return array
