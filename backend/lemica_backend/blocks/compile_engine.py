"""torch.compile, with open rows, tokens and text lengths; everything is compiled while the model loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from lemica_backend.blocks.engine_stack import RecompileError, Run
from lemica_backend.blocks.engines import Place
from lemica_backend.blocks.stack import AXES, ROWS, BlockStack, Range
from lemica_backend.errors import ModelLoadError

__all__ = ["CompileEngine"]

_REFUSED = "Detected recompile"  # how torch says that it would compile again where it must not
_GRAPHS = "reduce-overhead"  # torch's name for recording CUDA graphs
_UNTIL_RECORDED = 3  # calls of a size: one to warm up, one to record, one to replay


class CompileEngine:
    """See `lemica_backend.blocks.engines.BlockEngine`."""

    name = "compile"
    packages = ("torch",)
    suffix = ""
    ranges_matter = False
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    precisions = ("dtype",)
    devices = ("cpu", "cuda")
    builds_anywhere = False

    def device_key(self, device: torch.device) -> str:
        """Return the type of the device."""
        return device.type

    def build(self, stack: BlockStack, place: Place, path: Path) -> None:
        """Do nothing: torch keeps what it compiled in a cache of its own."""

    @torch.inference_mode()  # as requests run: what is compiled in another mode would be compiled again
    def load(self, stack: BlockStack, place: Place, path: Path) -> Run:
        """Compile, and run once at every kind of size that the ranges hold.

        Raises
        ------
        ModelLoadError
            If CUDA graphs are wanted, and the device or the sizes have none.
        """
        if place.cuda_graphs:
            return self._load_graphs(stack, place)
        compiled = torch.compile(stack, dynamic=True, fullgraph=True)
        for sizes in _kinds_of_sizes(place.ranges):
            compiled(*stack.example(sizes, place.device))
        return lambda tensors: _call(compiled, tensors)

    def _load_graphs(self, stack: BlockStack, place: Place) -> Run:
        """Compile so that kernels are recorded, and record them for every number of rows."""
        _require_graphs(place)
        compiled = torch.compile(stack, dynamic=True, fullgraph=True, mode=_GRAPHS)

        def run(tensors: tuple[Tensor, ...]) -> Tensor:
            torch.compiler.cudagraph_mark_step_begin()
            return _call(compiled, tensors).clone()  # the next replay writes into the same memory

        for sizes in _all_sizes(place.ranges):
            for _ in range(_UNTIL_RECORDED):
                torch.compiler.cudagraph_mark_step_begin()
                compiled(*stack.example(sizes, place.device))
        return run


def _call(compiled: Callable[..., Tensor], tensors: tuple[Tensor, ...]) -> Tensor:
    with torch.compiler.set_stance("fail_on_recompile"):
        try:
            return compiled(*(each.contiguous() for each in tensors))
        except RuntimeError as error:
            if _REFUSED not in str(error):
                raise
            raise RecompileError(str(error)) from error


def _require_graphs(place: Place) -> None:
    if place.device.type != "cuda":
        raise ModelLoadError(
            f"model.json, blocks.cuda_graphs: needs a GPU of CUDA, and the device is {place.device}: leave it out"
        )
    for axis, span in place.ranges.items():
        if axis != ROWS and span.least != span.most:
            raise ModelLoadError(
                f"model.json, blocks.cuda_graphs: a graph is for one size, and this model's {axis} has "
                f"{span.least} to {span.most}: leave it out"
            )


def _all_sizes(ranges: Mapping[str, Range]) -> Iterator[dict[str, int]]:
    """Yield every number of rows, of the one size that the other axes have; most rows first, which lends memory."""
    most = {axis: span.most for axis, span in ranges.items()}
    for rows in range(ranges[ROWS].most, ranges[ROWS].least - 1, -1):
        yield {**most, ROWS: rows}


def _kinds_of_sizes(ranges: Mapping[str, Range]) -> Iterator[dict[str, int]]:
    """Yield sizes for which torch makes code of its own: each axis at 1, where it can be, and above."""
    for sizes in product(*(_kinds(ranges[axis]) for axis in AXES)):
        yield dict(zip(AXES, sizes, strict=True))


def _kinds(span: Range) -> tuple[int, ...]:
    """Return sizes of an axis; of open ones two, for torch takes what it saw once for a constant."""
    most = span.most
    return tuple(sorted({span.least, min(2, most), min(3, most), most} - set(range(span.least))))
