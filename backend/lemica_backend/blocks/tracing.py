"""A block stack as torch's own graph, with open rows, tokens and text lengths: what engines build from."""

from __future__ import annotations

import torch
from torch.export import Dim, ExportedProgram

from lemica_backend.blocks.stack import AXES, ROWS, BlockStack

__all__ = ["traced"]

_MOST = 1 << 20  # of any axis: a graph does not depend on the range it is served in
_EXAMPLE_ROWS = 2  # torch.export takes an axis of 1 for a fixed one


def traced(stack: BlockStack, device: torch.device) -> ExportedProgram:
    """Return the graph; each axis of `stack` is one symbol in it."""
    example = stack.example({axis: _example(stack, axis) for axis in AXES}, device)
    with torch.no_grad(), stack.for_export():
        return torch.export.export(stack, example, dynamic_shapes=(_open_axes(stack),), strict=False)


def _example(stack: BlockStack, axis: str) -> int:
    return _EXAMPLE_ROWS if axis == ROWS else max(2, stack.served[axis].most)


def _open_axes(stack: BlockStack) -> tuple[dict[int, Dim], ...]:
    """Return the open dimensions of each input."""
    dims = {axis: Dim(axis, min=1 if axis == ROWS else 2, max=_MOST) for axis in AXES}
    return tuple({at: dims[axis] for at, axis in enumerate(each.shape) if axis in dims} for each in stack.inputs)
