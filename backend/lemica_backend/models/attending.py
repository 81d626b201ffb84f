"""Attention of diffusers' blocks, computed for a while by another processor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def attending(attentions: Iterable[Any], processor: Any) -> Iterator[None]:
    """Let one processor compute all of these attentions, and put back their own."""
    own = [(each, each.processor) for each in attentions]
    for attention, _ in own:
        attention.processor = processor
    try:
        yield
    finally:
        for attention, its in own:
            attention.processor = its
