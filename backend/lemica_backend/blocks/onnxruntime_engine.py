"""ONNX Runtime on CPUs."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from lemica_backend.blocks.engine_stack import Run
from lemica_backend.blocks.engines import Place
from lemica_backend.blocks.stack import BlockStack
from lemica_backend.errors import ModelLoadError

__all__ = ["OnnxRuntimeEngine"]


class OnnxRuntimeEngine:
    """See `lemica_backend.blocks.engines.BlockEngine`. It has no bfloat16 on CPUs, and no int8 but from float32."""

    name = "onnxruntime"
    packages = ("onnxruntime", "torch")
    suffix = ".onnx"
    ranges_matter = False
    dtypes = (torch.float32, torch.float16)  # numpy, through which tensors go, has no bfloat16
    precisions = ("dtype", "int8")
    devices = ("cpu",)
    builds_anywhere = False

    def device_key(self, device: torch.device) -> str:
        """Return the type of the device."""
        return device.type

    def build(self, stack: BlockStack, place: Place, path: Path) -> None:
        """Export the graph, and round its matrices where the precision says so."""
        from lemica_backend.blocks.onnx_export import export_onnx  # noqa: PLC0415 - serving needs no onnx

        if place.precision == "dtype":
            export_onnx(stack, place.device, path)
            return
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "stack.onnx"
            export_onnx(stack, place.device, whole)
            _round_matrices(whole, path, is_large=whole.with_name("stack.onnx.data").is_file())

    def load(self, stack: BlockStack, place: Place, path: Path) -> Run:
        """Open a session that has as many threads as torch."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # threads that spin would take the processor from torch's, which run the rest of the tick
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [each.name for each in stack.inputs]

        def run(tensors: tuple[Tensor, ...]) -> Tensor:
            feed = {name: each.contiguous().numpy() for name, each in zip(names, tensors, strict=True)}
            return torch.from_numpy(session.run(None, feed)[0])

        return run


def _round_matrices(whole: Path, path: Path, *, is_large: bool) -> None:
    """Write the graph with weights of 8-bit integers a column; what they multiply is rounded anew in each call.

    Attention stays in float32: both of its factors are made in the call. Raises ModelLoadError where it cannot.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - serving needs no onnx

    logging.disable(logging.WARNING)  # it advises to prepare the graph, whatever the graph
    try:
        _forget_shapes(whole)
        # of signed ones, processors without VNNI add up pairs in 16 bits, which may overflow
        quantize_dynamic(whole, path, per_channel=True, weight_type=QuantType.QUInt8, use_external_data_format=is_large)
    except Exception as error:  # whatever it and ONNX's shape inference raise
        raise ModelLoadError(f"onnxruntime cannot round the matrices of this block stack: {error}") from error
    finally:
        logging.disable(logging.NOTSET)


def _forget_shapes(path: Path) -> None:
    """Leave out the shapes that the exporter noted: the quantiser turns matrices over, and then finds other ones."""
    import onnx  # noqa: PLC0415 - serving needs no onnx

    model = onnx.load(str(path), load_external_data=False)
    del model.graph.value_info[:]
    onnx.save(model, str(path))
