"""torch.compile, with open rows, tokens and text lengths; everything is compiled while the model loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from lemica_backend.blocks.engine_stack import RecompileError, Run
from lemica_backend.blocks.engines import Place
from lemica_backend.blocks.stack import AXES, BlockStack, Range

__all__ = ["CompileEngine"]

_REFUSED = "Detected recompile"  # how torch says that it would compile again where it must not


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
        """Compile, and run once at every kind of size that the ranges hold."""
        compiled = torch.compile(stack, dynamic=True, fullgraph=True)
        for sizes in _kinds_of_sizes(place.ranges):
            compiled(*stack.example(sizes, place.device))

        def run(tensors: tuple[Tensor, ...]) -> Tensor:
            with torch.compiler.set_stance("fail_on_recompile"):
                try:
                    output: Tensor = compiled(*(each.contiguous() for each in tensors))
                except RuntimeError as error:
                    if _REFUSED not in str(error):
                        raise
                    raise RecompileError(str(error)) from error
            return output

        return run


def _kinds_of_sizes(ranges: Mapping[str, Range]) -> Iterator[dict[str, int]]:
    """Yield sizes for which torch makes code of its own: each axis at 1, where it can be, and above."""
    for sizes in product(*(_kinds(ranges[axis]) for axis in AXES)):
        yield dict(zip(AXES, sizes, strict=True))


def _kinds(span: Range) -> tuple[int, ...]:
    """Return sizes of an axis; of open ones two, for torch takes what it saw once for a constant."""
    most = span.most
    return tuple(sorted({span.least, min(2, most), min(3, most), most} - set(range(span.least))))
