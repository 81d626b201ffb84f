"""How many threads torch computes with: for small tensors, waking the others takes longer than they save."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["threads_for", "using_threads"]

_SMALL = 1 << 18  # elements of all latents that are embedded together


def threads_for(latents: Sequence[Tensor]) -> int:
    """Return how many threads should embed these latents, and do what else a step does beside the block stack."""
    is_small = sum(each.numel() for each in latents) <= _SMALL and all(each.device.type == "cpu" for each in latents)
    return 1 if is_small else torch.get_num_threads()


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Let this thread's tensors be computed by so many."""
    own = torch.get_num_threads()
    if count == own:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(own)
