"""A block stack as an ONNX graph (opset 18) whose rows, tokens and text lengths are open."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch

from lemica_backend.blocks.stack import BlockStack
from lemica_backend.blocks.tracing import traced

__all__ = ["OPSET", "OUTPUT", "export_onnx"]

OPSET = 18  # later ones have an Attention that TensorRT takes in half precision only
OUTPUT = "hidden_out"
_ONE_FILE_BYTES = 1 << 30  # protobuf ends at 2 GiB


def export_onnx(stack: BlockStack, device: torch.device, path: Path) -> None:
    """Write the graph with the stack's weights, and let ONNX's checker look at it.

    Above 1 GiB of weights, they are in ``PATH.data``.
    """
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            traced(stack, device),
            dynamo=True,
            input_names=[each.name for each in stack.inputs],
            output_names=[OUTPUT],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    weights = sum(each.nbytes for each in stack.parameters())
    program.save(str(path), external_data=weights > _ONE_FILE_BYTES)
    onnx.checker.check_model(str(path), full_check=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says about torchvision and its own deprecations out of the log."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
