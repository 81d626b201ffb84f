"""A block stack as it is served: an engine runs it, and the eager one what the engine was not built for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lemica_backend.blocks.stack import ROWS, BlockStack, Range

__all__ = ["EngineStack", "Fallbacks", "RecompileError", "Run", "StackCall", "most_rows", "take_fallbacks"]

Run = Callable[[tuple[Tensor, ...]], Tensor]  # a loaded artifact: all inputs in, hidden states out
OUT_OF_RANGE, RECOMPILE = REASONS = ("out_of_range", "recompile")
StackCall = Callable[..., Tensor]
_log = logging.getLogger(__name__)


class RecompileError(Exception):
    """An engine would have to compile inside a request."""


@dataclass
class Fallbacks:
    """Rows that ran on the eager engine, by reason, since `take` was called last."""

    rows: Counter[str] = field(default_factory=Counter)

    def take(self) -> dict[str, int]:
        """Return the counts and begin anew."""
        taken, self.rows = dict(self.rows), Counter()
        return taken


class EngineStack:
    """Takes the place of a `BlockStack` in a loaded model.

    Parameters
    ----------
    eager : BlockStack
    run : callable
    ranges : mapping of str to Range
        The sizes that `run` serves, for every axis of the inputs.
    """

    def __init__(self, eager: BlockStack, run: Run, ranges: Mapping[str, Range]) -> None:
        self.eager = eager
        self.fallbacks = Fallbacks()
        self._run = run
        self._ranges = dict(ranges)
        self._told: set[str] = set()

    @property
    def most_rows(self) -> int:
        """The most rows of a forward that the engine serves."""
        return self._ranges[ROWS].most

    def __call__(self, *tensors: Tensor | None) -> Tensor:
        """Return the hidden states after the last block."""
        sizes = self.eager.sizes(tensors)
        outside = {axis: size for axis, size in sizes.items() if size not in self._ranges[axis]}
        if outside:
            self._tell_outside(outside)
            return self._run_eager(tensors, sizes, OUT_OF_RANGE)
        try:
            return self._run(self.eager.complete(tensors))
        except RecompileError as error:
            _log.error("the block stack would be compiled inside a request, so it runs eagerly: %s", error)
            return self._run_eager(tensors, sizes, RECOMPILE)

    def _run_eager(self, tensors: Sequence[Tensor | None], sizes: Mapping[str, int], reason: str) -> Tensor:
        self.fallbacks.rows[reason] += sizes[ROWS]
        output: Tensor = self.eager(*tensors)
        return output

    def _tell_outside(self, outside: Mapping[str, int]) -> None:
        """Log each axis once: a server that is set too small would fill its log."""
        for axis in outside.keys() - self._told:
            self._told.add(axis)
            low, high = self._ranges[axis]
            _log.warning(
                "%d %s in a forward; the block engine serves %d to %d, so such forwards run eagerly (told once)",
                outside[axis],
                axis,
                low,
                high,
            )


def most_rows(model: Any) -> int | None:
    """Return the most rows of a forward that a model's engines serve; None where torch alone runs, which takes any."""
    stacks = getattr(getattr(model, "base", model), "stacks", ())
    return min((stack.most_rows for stack in stacks if isinstance(stack, EngineStack)), default=None)


def take_fallbacks(model: Any) -> dict[str, int]:
    """Return the rows that a model's engines left to the eager one since the last call, by reason."""
    stacks = getattr(getattr(model, "base", model), "stacks", ())
    total: Counter[str] = Counter()
    for stack in stacks:
        if isinstance(stack, EngineStack):
            total.update(stack.fallbacks.take())
    return dict(total)
