"""What one request keeps of its computed steps, and what it makes of that at a skipped step."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from torch import Tensor

from lemica_backend.operators import Source, depths
from lemica_backend.types import Branch
from lemica_planner import Check
from lemica_planner.value_history import ValueHistory

Key = Branch | Literal["guided", "noise"]  # residuals belong to a branch, output and noise to the request
GUIDED: Key = "guided"
NOISE: Key = "noise"
_SOURCE_OF: dict[Key, Source] = {GUIDED: "output", NOISE: "noise"}
_SMALLEST = 1e-30  # a forecast that misses nothing has no logarithm
_KEYS_OF_PART: dict[str, tuple[Key, ...]] = {
    "residual": ("uncond", "cond"),
    "cond": ("cond",),
    "output": (GUIDED,),
    "noise": (NOISE,),
}


class StepCache(ValueHistory):
    """State of one request; the step index is always passed in.

    Parameters
    ----------
    times : sequence of float
        The sampler's time at each step, strictly monotonic; see `lemica_planner.sampler_time`.
    operators : collection of str
        The operators that will predict; what none of them needs is not kept.
    switches : collection of int
        The steps at which other weights take over: what was recorded before one is dropped there.
    checks : mapping of tuple of int to Check
        What forecasts usually miss, by the computed steps that they look at and the one that they are for.
    """

    def __init__(
        self,
        times: Sequence[float],
        operators: Collection[str],
        switches: Collection[int] = (),
        checks: Mapping[tuple[int, ...], Check] | None = None,
    ) -> None:
        super().__init__(times)
        self._checks = checks or {}
        self._misses: dict[int, list[Tensor]] = {}  # by computed step, mean squares over the usual one
        self._operators = operators
        self._depth = depths(operators)
        self._switches = switches

    def keeps(self, source: Source) -> bool:
        """Whether some operator needs the residuals, the output or the noise of computed steps."""
        return self._depth[source] > 0

    def record(self, step: int, key: Key, value: Tensor) -> None:
        """Keep what a computed step made: a branch's residual, the guided output or its noise."""
        depth = self._depth[_SOURCE_OF.get(key, "residual")]
        if depth:
            since = max((switch for switch in self._switches if switch <= step), default=0)
            self._kept[key] = tuple(each for each in self._kept.get(key, ()) if each.step >= since)
            self._check(step, key, value)
            self.keep(step, key, value, depth)

    def _check(self, step: int, key: Key, value: Tensor) -> None:
        """Compare a computed value with what would have been forecast for it."""
        check = self._checks.get((*(each.step for each in self._kept[key]), step))
        if check and key in _KEYS_OF_PART.get(check.part, ()):
            missed = (value - self._combine(key, check.weights)).float()
            self._misses.setdefault(step, []).append(missed.square().mean() / check.usual**2)

    def forecast_miss(self) -> float | None:
        """Return how far off forecasts were at the computed steps, 1 being as on the calibration prompts.

        The geometric mean over steps of root mean squares over the usual ones; None if nothing was checked.
        """
        logs = [math.log(max(float(sum(parts)) / len(parts), _SMALLEST)) / 2 for parts in self._misses.values()]
        return math.exp(sum(logs) / len(logs)) if logs else None

    def latest(self) -> dict[Key, Tensor]:
        """Return what the last computed step recorded."""
        return {key: values[-1].tensor for key, values in self._kept.items()}

    def copy(self) -> StepCache:
        """Return a cache that records on its own; the tensors are shared."""
        twin = StepCache(self.times, self._operators, self._switches, self._checks)
        twin._kept = dict(self._kept)
        twin._misses = {step: list(parts) for step, parts in self._misses.items()}
        return twin

    def clear(self) -> None:
        """Drop everything."""
        super().clear()
        self._misses.clear()
