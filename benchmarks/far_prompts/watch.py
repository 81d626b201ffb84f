"""What a request's computed steps say, beside what was forecast for them; costs no forward.

At a computed step the step cache still holds the values of the computed steps before it. What an operator makes of
them, against the value that was just computed, is the operator's own error at that step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from torch import Tensor

from lemica_backend.step_cache import GUIDED, Key, StepCache
from lemica_planner import Fill, PlanEntry
from lemica_planner.forecast import fit_weights
from lemica_planner.operator_graph import OperatorGraph

__all__ = ["Forecasts", "Seen", "WatchedCache", "forecasts"]

Forecasts = Mapping[int, Mapping[str, Fill]]  # by computed step and name
Seen = dict[int, dict[str, dict[str, float]]]
_PLAIN = {"reuse": "residual", "line": "residual-linear"}


def forecasts(graph: OperatorGraph, entry: PlanEntry) -> dict[int, dict[str, Fill]]:
    """Return by computed step but the first what could have been forecast for it.

    ``reuse`` of the last value, the ``line`` through the last two, and ``own``: what the operator that filled in the
    steps before would have made of this one.
    """
    known = {name: Fill(operator) for name, operator in _PLAIN.items()}
    found = {}
    for at, step in enumerate(entry.steps[1:], start=1):
        operator = (entry.operators or (graph.provenance.operator,) * at)[at - 1]
        found[step] = {**known, "own": _own(graph, operator, entry.steps[max(0, at - 2) : at], step)}
    return found


def _own(graph: OperatorGraph, operator: str, before: Sequence[int], step: int) -> Fill:
    fits = graph.candidates.operators[operator].fits
    return Fill(
        operator, tuple(chain.from_iterable(fit_weights(graph.candidates.grams[part], before, step) for part in fits))
    )


class WatchedCache(StepCache):
    """A step cache that writes down every computed value's size and how far each forecast was from it.

    Parameters
    ----------
    times : sequence of float
        As of `StepCache`.
    fills : Forecasts
    guidance_scale : float

    Attributes
    ----------
    seen : dict of int to dict
        By computed step and by what was looked at (``size``: the value itself, else a forecast's error), root mean
        squares of each branch's residual, of both combined by guidance, of their difference, and of the guided output.
    """

    def __init__(self, times: Sequence[float], fills: Forecasts, guidance_scale: float) -> None:
        super().__init__(times, ("residual-linear", "output"))
        self._fills, self._scale = fills, guidance_scale
        self._uncond: dict[str, Tensor] = {}
        self.seen: Seen = {}

    def record(self, step: int, key: Key, value: Tensor) -> None:
        """Keep the value, after a look at it."""
        self._look(step, "size", key, value)
        if key != GUIDED:
            for name, fill in self._fills.get(step, {}).items():
                self._look(step, name, key, value - self.predict(step, key, fill))
        super().record(step, key, value)

    def _look(self, step: int, name: str, key: Key, value: Tensor) -> None:
        """Write down the size of a branch's value, and with the second branch that of both guided."""
        seen = self.seen.setdefault(step, {}).setdefault(name, {})
        seen[key] = _size(value)
        if key == "uncond":
            self._uncond[name] = value
        elif key == "cond" and name in self._uncond:
            uncond = self._uncond.pop(name)
            seen["combined"] = _size(uncond + self._scale * (value - uncond))
            seen["difference"] = _size(value - uncond)


def _size(value: Tensor) -> float:
    return float(value.float().square().mean().sqrt())
