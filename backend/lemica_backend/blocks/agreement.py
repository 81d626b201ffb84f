"""How far an engine's results are from the eager ones, and how far they may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import torch

from lemica_backend.blocks.engine_stack import Run
from lemica_backend.blocks.engines import Place
from lemica_backend.blocks.stack import ROWS, TEXT, TOKENS, BlockStack, Range
from lemica_backend.errors import ModelLoadError

__all__ = ["BOUNDS", "INT8_BOUND", "bound_of", "largest_difference", "require_agreement", "sizes_to_try"]

BOUNDS: Mapping[torch.dtype, float] = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
INT8_BOUND = 0.15
_ROWS_TO_TRY = (2, 4)  # of one request with guidance, and of more


def sizes_to_try(ranges: Mapping[str, Range]) -> Iterator[dict[str, int]]:
    """Yield sizes at the ends of the ranges, and of few rows."""
    rows = sorted({ranges[ROWS].least, *(min(each, ranges[ROWS].most) for each in _ROWS_TO_TRY)})
    for row, tokens, text in product(rows, _ends(ranges[TOKENS]), _ends(ranges[TEXT])):
        yield {ROWS: row, TOKENS: tokens, TEXT: text}


def _ends(span: Range) -> list[int]:
    return sorted({max(2, span.least) if span.most > 1 else span.least, span.most})


@torch.inference_mode()
def largest_difference(stack: BlockStack, run: Run, place: Place) -> float:
    """Return the largest difference of a hidden state, over the largest one, at several sizes."""
    found = []
    for seed, sizes in enumerate(sizes_to_try(place.ranges)):
        inputs = stack.example(sizes, place.device, seed=seed)
        eager, other = stack(*inputs).float(), run(inputs).float()
        found.append((other - eager).abs().max() / eager.abs().max())
    return torch.stack(found).max().item()  # not a number if any of them is none


def bound_of(place: Place) -> float:
    """Return how far results may be off."""
    rounded = {"bfloat16": BOUNDS[torch.bfloat16], "int8": INT8_BOUND}
    return rounded.get(place.precision, BOUNDS[place.dtype])


def require_agreement(stack: BlockStack, run: Run, place: Place) -> float:
    """Return `largest_difference`.

    Raises
    ------
    ModelLoadError
        If it is above the bound of the precision, or not a number.
    """
    found, bound = largest_difference(stack, run, place), bound_of(place)
    if not found <= bound:
        raise ModelLoadError(f"the engine's results differ from the eager ones by {found:.2g}; allowed are {bound:g}")
    return found
