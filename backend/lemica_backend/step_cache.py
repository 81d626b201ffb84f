"""What one request keeps of its computed steps, and what it makes of that at a skipped step.

An operator is named in the plan, because a plan is only valid for the operator that it was
calibrated with. The same code serves and calibrates.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from lemica_backend.types import Branch


class StepCache(Protocol):
    """State of one request; the step index and the branch are always passed in."""

    def record(self, step: int, branch: Branch, residual: Tensor) -> None:
        """Keep what the block stack added at a computed step."""
        ...

    def predict(self, step: int, branch: Branch) -> Tensor:
        """Return what the block stack is taken to add at a skipped step."""
        ...

    def copy(self) -> StepCache:
        """Return a cache that records on its own; the tensors are shared."""
        ...

    def clear(self) -> None:
        """Drop everything."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held."""
        ...


class ResidualReuse:
    """The paper's operator: the block-stack residual of the last computed step, as it is (arXiv 2511.00090, 3.1)."""

    def __init__(self, kept: dict[Branch, Tensor] | None = None) -> None:
        self._kept: dict[Branch, Tensor] = dict(kept or {})

    def record(self, step: int, branch: Branch, residual: Tensor) -> None:
        """Keep the residual; that of an earlier step is dropped."""
        self._kept[branch] = residual

    def predict(self, step: int, branch: Branch) -> Tensor:
        """Return the residual of the last computed step."""
        return self._kept[branch]

    def copy(self) -> ResidualReuse:
        """Return a cache that records on its own; the tensors are shared."""
        return ResidualReuse(self._kept)

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held."""
        return sum(tensor.nbytes for tensor in self._kept.values())


OPERATORS: dict[str, type[ResidualReuse]] = {"residual": ResidualReuse}
