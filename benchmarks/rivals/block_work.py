"""Count the work of the blocks that really ran, whoever skipped the others and in whatever part.

Floating-point operations of matrix products: ``2 m n k`` for a linear layer, ``4 n m d`` for the two products of an
attention of n queries and m keys of width d. Norms, activations and sums are left out, as in torch's own
``FlopCounterMode``, with which a test compares. Hooks sit on the linear layers, so they do not fire where a cache's
hook answers in place of an attention, a feed-forward or a whole block, and they see how many rows came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class BlockWork:
    """A counter of floating-point operations; `flops` only grows."""

    def __init__(self) -> None:
        self.flops = 0
        self._queries: dict[int, Tensor] = {}

    @contextmanager
    def watch(self, blocks: Iterable[nn.Module]) -> Iterator[BlockWork]:
        """Count what runs in these blocks until the context ends."""
        handles = [handle for block in blocks for handle in self._hook(block)]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self._queries.clear()

    def _hook(self, block: nn.Module) -> Iterator[Any]:
        for module in block.modules():
            if isinstance(module, nn.Linear):
                yield module.register_forward_hook(self._count_linear)
            if isinstance(getattr(module, "to_q", None), nn.Linear):
                yield module.to_q.register_forward_hook(self._note_queries(id(module)))  # type: ignore[union-attr]
                yield module.to_v.register_forward_hook(self._count_attention(id(module)))  # type: ignore[union-attr]

    def _count_linear(self, layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        self.flops += 2 * output.numel() * layer.in_features

    def _note_queries(self, attention: int) -> Any:
        def note(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._queries[attention] = output

        return note

    def _count_attention(self, attention: int) -> Any:
        def count(_layer: nn.Module, _inputs: Any, values: Tensor) -> None:
            queries = self._queries.pop(attention)
            self.flops += 4 * queries.numel() * values.shape[1]

        return count


def blocks_of(net: Any) -> list[nn.Module]:
    """Return the spatial and temporal blocks of a ``LatteTransformer3DModel``."""
    return [*net.transformer_blocks, *net.temporal_transformer_blocks]
