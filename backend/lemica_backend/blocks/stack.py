"""A transformer's blocks as one function of plain tensors, with the names and the sizes of what goes in.

Knows nothing about engines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["AXES", "ROWS", "TEXT", "TOKENS", "BlockStack", "Range", "StackInput"]

ROWS, TOKENS, TEXT = AXES = ("rows", "tokens", "text")  # what may differ from call to call
_SCALE = 0.5  # of made-up inputs: as large as real ones, and far from where softmax is only one or nothing
Axis = str | int


class Range(NamedTuple):
    """Sizes of an axis, both ends included."""

    least: int
    most: int

    def __contains__(self, size: object) -> bool:
        return isinstance(size, int) and self.least <= size <= self.most


class StackInput(NamedTuple):
    """One argument of a block stack.

    Attributes
    ----------
    name : str
    shape : tuple of str or int
        Sizes that are fixed, and names of axes.
    dtype : torch.dtype
    default : float or bool or None
        What fills it where a call gives None; None if every call gives it.
    """

    name: str
    shape: tuple[Axis, ...]
    dtype: torch.dtype
    default: float | bool | None = None

    def sized(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape for sizes of the axes."""
        return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in self.shape)


class BlockStack(nn.Module, ABC):
    """The blocks of one transformer; it holds the loaded model's own modules, no copies.

    Its first input is the hidden states, and its output has their shape.

    Parameters
    ----------
    inputs : sequence of StackInput
    served : mapping of str to Range
        Sizes that the loaded model gives to tokens and text; rows are the engine's choice.
    """

    def __init__(self, inputs: Sequence[StackInput], served: Mapping[str, Range]) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        self.served = dict(served)

    @abstractmethod
    def forward(self, *tensors: Tensor | None) -> Tensor:
        """Return the hidden states after the last block."""

    @property
    def token_attentions(self) -> tuple[Any, ...]:
        """The attention among tokens of each block, where diffusers can split it over processes; else nothing."""
        return ()

    def for_export(self) -> AbstractContextManager[object]:
        """Return a context in which the blocks compute the same in a form that exporters take."""
        return nullcontext()

    def sizes(self, tensors: Sequence[Tensor | None]) -> dict[str, int]:
        """Return the sizes of the axes in one call."""
        return {
            axis: tensor.shape[at]
            for each, tensor in zip(self.inputs, tensors, strict=True)
            if tensor is not None
            for at, axis in enumerate(each.shape)
            if isinstance(axis, str)
        }

    def complete(self, tensors: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """Return a call's tensors with those filled in that it leaves out."""
        if all(tensor is not None for tensor in tensors):
            return tuple(tensor for tensor in tensors if tensor is not None)
        sizes, hidden = self.sizes(tensors), tensors[0]
        assert hidden is not None
        return tuple(
            _filled(each, sizes, hidden.device) if tensor is None else tensor
            for each, tensor in zip(self.inputs, tensors, strict=True)
        )

    def example(self, sizes: Mapping[str, int], device: torch.device | str, *, seed: int = 0) -> tuple[Tensor, ...]:
        """Return made-up inputs of the given sizes, the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(_random(each, sizes, generator).to(device) for each in self.inputs)


def _filled(each: StackInput, sizes: Mapping[str, int], device: torch.device) -> Tensor:
    assert each.default is not None, f"every call gives {each.name}"
    return torch.full(each.sized(sizes), each.default, dtype=each.dtype, device=device)


def _random(each: StackInput, sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
    shape = each.sized(sizes)
    if each.dtype == torch.bool:  # a mask of texts, which are padded at their ends and never empty
        lengths = torch.randint(1, shape[-1] + 1, (*shape[:-1], 1), generator=generator)
        return torch.arange(shape[-1]) < lengths
    return (torch.randn(shape, generator=generator) * _SCALE).to(each.dtype)
