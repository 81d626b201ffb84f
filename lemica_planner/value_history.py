"""The last computed values of one request, and what an operator makes of them at a skipped step.

The one code for calibration, the server and the hook for diffusers. It knows no array library: values are multiplied by
numbers, and added with torch's ``add_``.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from lemica_planner.operators import OPERATORS, SPLIT, Operator, extrapolation_weights
from lemica_planner.plan_entry import Fill

__all__ = ["Term", "Value", "ValueHistory"]


class Value(NamedTuple):
    """What a computed step made."""

    step: int
    tensor: Any


class Term(NamedTuple):
    """A kept value's part in a sum."""

    tensor: Any
    weight: float


class ValueHistory:
    """Values by key, such as a branch; the step index is always passed in.

    Parameters
    ----------
    times : sequence of float
        The sampler's time at each step, strictly monotonic; see `lemica_planner.sampler_time`.
    """

    def __init__(self, times: Sequence[float]) -> None:
        self.times = times
        self._kept: dict[Any, tuple[Value, ...]] = {}

    def keep(self, step: int, key: Hashable, value: Any, depth: int) -> None:
        """Keep a computed value, and of those before it as many as make `depth`."""
        self._kept[key] = (*self._kept.get(key, ()), Value(step, value))[-depth:]

    def steps(self, key: Hashable) -> tuple[int, ...]:
        """Return the steps whose values are kept, the oldest first."""
        return tuple(value.step for value in self._kept.get(key, ()))

    def predict(self, step: int, key: Hashable, fill: Fill) -> Any:
        """Return what a skipped step takes in place of a computed value.

        With fewer computed steps behind it than its order needs, an operator takes those that are there.
        """
        return _summed(self.terms(step, key, fill))

    def terms(self, step: int, key: Hashable, fill: Fill) -> list[Term]:
        """Return kept values and their weights, whose sum `predict` returns."""
        weights = fill.weights or self._polynomial(step, key, OPERATORS[fill.operator])
        return self._split_terms(key, weights) if fill.operator == SPLIT else self._terms(key, weights)

    def _polynomial(self, step: int, key: Hashable, operator: Operator) -> Sequence[float]:
        """Return the weights that extrapolate, for each part that has weights of its own."""
        values = self._kept[key][-1 - operator.order :]
        weights = extrapolation_weights([self.times[value.step] for value in values], self.times[step])
        return weights * max(1, len(operator.fits))

    def _split_terms(self, key: Hashable, weights: Sequence[float]) -> list[Term]:
        """Forecast a branch from the conditional residual and the guidance, each by its half of the weights.

        The unconditional residual is the conditional one less the guidance.
        """
        cond, guidance = weights[: len(weights) // 2], weights[len(weights) // 2 :]
        if key == "cond":
            return self._terms("cond", cond)
        rest = [ours - theirs for ours, theirs in zip(cond, guidance, strict=True)]
        return self._terms("cond", rest) + self._terms("uncond", guidance)

    def _terms(self, key: Hashable, weights: Sequence[float]) -> list[Term]:
        """Return the last computed values with their weights; the oldest comes first."""
        values = self._kept[key][-len(weights) :]
        return [Term(value.tensor, weight) for value, weight in zip(values, weights, strict=True)]

    def _combine(self, key: Hashable, weights: Sequence[float]) -> Any:
        """Return the sum of the last computed values, each times its weight."""
        return _summed(self._terms(key, weights))

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held; may be asked from any thread."""
        return sum(value.tensor.nbytes for values in tuple(self._kept.values()) for value in values)


def _summed(terms: Sequence[Term]) -> Any:
    total = terms[0].tensor * terms[0].weight
    for tensor, weight in terms[1:]:
        total.add_(tensor, alpha=weight)
    return total
