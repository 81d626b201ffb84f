"""What one request keeps of its computed steps, and what it makes of that at a skipped step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from lemica_backend.operators import OPERATORS, SPLIT, Operator, Source, extrapolation_weights
from lemica_backend.types import Branch
from lemica_planner import Fill

Key = Branch | Literal["guided", "noise"]  # residuals belong to a branch, output and noise to the request
GUIDED: Key = "guided"
NOISE: Key = "noise"
_SOURCE_OF: dict[Key, Source] = {GUIDED: "output", NOISE: "noise"}


class _Value(NamedTuple):
    step: int
    tensor: Tensor


def depths(operators: Collection[str]) -> dict[Source, int]:
    """Return of how many computed steps the values of each source are kept for these operators."""
    chosen = [OPERATORS[name] for name in operators]
    return {
        source: max((each.order + 1 for each in chosen if each.source == source), default=0)
        for source in ("residual", "output", "noise")
    }


class StepCache:
    """State of one request; the step index is always passed in.

    Parameters
    ----------
    times : sequence of float
        The sampler's time at each step, strictly monotonic; see `lemica_backend.sampler_time`.
    operators : collection of str
        The operators that will predict; what none of them needs is not kept.
    switches : collection of int
        The steps at which other weights take over: what was recorded before one is dropped there.
    """

    def __init__(self, times: Sequence[float], operators: Collection[str], switches: Collection[int] = ()) -> None:
        self.times = times
        self._operators = operators
        self._depth = depths(operators)
        self._switches = switches
        self._kept: dict[Key, tuple[_Value, ...]] = {}

    def keeps(self, source: Source) -> bool:
        """Whether some operator needs the residuals, the output or the noise of computed steps."""
        return self._depth[source] > 0

    def record(self, step: int, key: Key, value: Tensor) -> None:
        """Keep what a computed step made: a branch's residual, the guided output or its noise."""
        depth = self._depth[_SOURCE_OF.get(key, "residual")]
        if depth:
            since = max((switch for switch in self._switches if switch <= step), default=0)
            before = (each for each in self._kept.get(key, ()) if each.step >= since)
            self._kept[key] = (*before, _Value(step, value))[-depth:]

    def predict(self, step: int, key: Key, fill: Fill) -> Tensor:
        """Return what a skipped step takes in place of a computed value.

        With fewer computed steps behind it than its order needs, an operator takes those that are there.
        """
        weights = fill.weights or self._polynomial(step, key, OPERATORS[fill.operator])
        return self._predict_split(key, weights) if fill.operator == SPLIT else self._combine(key, weights)

    def _polynomial(self, step: int, key: Key, operator: Operator) -> Sequence[float]:
        """Return the weights that extrapolate, for each part that has weights of its own."""
        values = self._kept[key][-1 - operator.order :]
        weights = extrapolation_weights([self.times[value.step] for value in values], self.times[step])
        return weights * max(1, len(operator.fits))

    def _predict_split(self, key: Key, weights: Sequence[float]) -> Tensor:
        """Forecast a branch from the conditional residual and the guidance, each by its half of the weights.

        The unconditional residual is the conditional one less the guidance.
        """
        cond, guidance = weights[: len(weights) // 2], weights[len(weights) // 2 :]
        if key == "cond":
            return self._combine("cond", cond)
        rest = [ours - theirs for ours, theirs in zip(cond, guidance, strict=True)]
        return self._combine("cond", rest).add_(self._combine("uncond", guidance))

    def _combine(self, key: Key, weights: Sequence[float]) -> Tensor:
        """Return the sum of the last computed values, each times its weight; the oldest comes first."""
        values = self._kept[key][-len(weights) :]
        combined = values[0].tensor * weights[0]
        for value, weight in zip(values[1:], weights[1:], strict=True):
            combined.add_(value.tensor, alpha=weight)
        return combined

    def latest(self) -> dict[Key, Tensor]:
        """Return what the last computed step recorded."""
        return {key: values[-1].tensor for key, values in self._kept.items()}

    def copy(self) -> StepCache:
        """Return a cache that records on its own; the tensors are shared."""
        twin = StepCache(self.times, self._operators, self._switches)
        twin._kept = dict(self._kept)
        return twin

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held."""
        return sum(value.tensor.nbytes for values in self._kept.values() for value in values)
