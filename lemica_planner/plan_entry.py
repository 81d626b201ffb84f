"""One budget of a cache plan: the steps to compute, and what they are predicted to cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from lemica_planner.errors import PlanFormatError
from lemica_planner.strict_json import check_keys, describe, require_list, require_object

__all__ = ["Fill", "PlanEntry"]

_ENTRY_KEYS = ("steps", "predicted_error", "errors")
_OPTIONAL_KEYS = ("operators", "weights", "outcome")


class Fill(NamedTuple):
    """What a skipped step is made of.

    Attributes
    ----------
    operator : str
    weights : tuple of float
        Of the values of the last computed steps, the oldest first; empty where the operator knows them itself.
    """

    operator: str
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class PlanEntry:
    """The steps of one budget.

    Attributes
    ----------
    steps : tuple of int
        The computed steps, strictly ascending from 0; at every other step the last computed one is reused.
    errors : tuple of float or None
        The path's edge weights from largest to smallest, ``len(steps) - 1`` of them; None if never measured.
    operators : tuple of str or None
        What fills in the steps after each computed one but the last, in the order of the steps, ``len(steps) - 1`` of
        them; None for the operator of the plan's provenance everywhere.
    weights : mapping of int to tuple of float
        By skipped step, the weights of the last computed values, the oldest first, for operators that are fitted.
    outcome : float or None
        What running the whole path changed on the calibration samples, in the plan's metric and risk; None if it was
        never run.
    """

    steps: tuple[int, ...]
    errors: tuple[float, ...] | None = None
    operators: tuple[str, ...] | None = None
    weights: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    outcome: float | None = None

    def __post_init__(self) -> None:
        where = f"the entry of {len(self.steps)} steps"
        object.__setattr__(self, "steps", _valid_steps(self.steps, where))
        if self.errors is not None:
            object.__setattr__(self, "errors", _valid_errors(self.errors, len(self.steps), where))
        if self.operators is not None:
            object.__setattr__(self, "operators", _valid_operators(self.operators, len(self.steps), where))
        object.__setattr__(self, "weights", _valid_weights(self.weights, self.steps, where))
        if self.outcome is not None:
            object.__setattr__(self, "outcome", _valid_outcome(self.outcome, where))

    @property
    def budget(self) -> int:
        """Number of computed steps."""
        return len(self.steps)

    @property
    def predicted_error(self) -> float | None:
        """The worst edge's error, None if never measured."""
        return None if self.errors is None else self.errors[0]

    def reuse(self, operator: str) -> dict[int, Fill]:
        """Return what every skipped step is made of, by `operator` where the entry names none.

        Examples
        --------
        >>> PlanEntry((0, 2, 4), operators=("output", "residual")).reuse("residual")[1]
        Fill(operator='output', weights=())
        """
        chosen = self.operators or (operator,) * (len(self.steps) - 1)
        gaps = zip(pairwise(self.steps), chosen, strict=True)
        named = {step: name for (start, end), name in gaps for step in range(start + 1, end)}
        return {step: Fill(name, self.weights.get(step, ())) for step, name in named.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as JSON values."""
        errors = None if self.errors is None else list(self.errors)
        known: dict[str, Any] = {"steps": list(self.steps), "predicted_error": self.predicted_error, "errors": errors}
        if self.operators is not None:
            known["operators"] = list(self.operators)
        if self.weights:
            known["weights"] = {str(step): list(weights) for step, weights in self.weights.items()}
        if self.outcome is not None:
            known["outcome"] = self.outcome
        return known

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> PlanEntry:
        """Build from the parsed JSON of `to_dict`; `where` names the place in messages."""
        check_keys(data, where, required=_ENTRY_KEYS, optional=_OPTIONAL_KEYS)
        errors = None if data["errors"] is None else tuple(require_list(data["errors"], f"{where}.errors"))
        operators = tuple(require_list(data["operators"], f"{where}.operators")) if "operators" in data else None
        weights = _parsed_weights(require_object(data.get("weights", {}), f"{where}.weights"), f"{where}.weights")
        entry = cls(
            tuple(require_list(data["steps"], f"{where}.steps")), errors, operators, weights, data.get("outcome")
        )
        if data["predicted_error"] != entry.predicted_error:
            raise PlanFormatError(
                f"{where}.predicted_error must be the largest of its errors, {entry.predicted_error}; "
                f"got {describe(data['predicted_error'])}"
            )
        return entry


def _valid_outcome(outcome: object, where: str) -> float:
    if isinstance(outcome, bool) or not isinstance(outcome, float | int) or not 0 <= outcome < math.inf:
        raise PlanFormatError(f"the outcome of {where} must be a finite number >= 0; got {describe(outcome)}")
    return float(outcome)


def _parsed_weights(data: Mapping[str, Any], where: str) -> dict[int, tuple[float, ...]]:
    wrong = [key for key in data if not (key.isascii() and key.isdigit())]
    if wrong:
        raise PlanFormatError(f"{where} must be keyed by steps, such as '3'; got {wrong[0]!r}")
    return {int(key): tuple(require_list(values, f"{where}.{key}")) for key, values in data.items()}


def _valid_weights(
    weights: Mapping[int, tuple[float, ...]], steps: tuple[int, ...], where: str
) -> dict[int, tuple[float, ...]]:
    skipped = set(range(steps[-1])) - set(steps)
    for step, values in weights.items():
        numbers = all(isinstance(value, float | int) and not isinstance(value, bool) for value in values)
        if step not in skipped or not values or not numbers or not all(map(math.isfinite, values)):
            raise PlanFormatError(
                f"the weights of {where} must be finite numbers for skipped steps; got {describe(values)}, step {step}"
            )
    return {step: tuple(map(float, values)) for step, values in sorted(weights.items())}


def _valid_operators(operators: Iterable[object], steps: int, where: str) -> tuple[str, ...]:
    given = tuple(operators)
    names = tuple(name for name in given if isinstance(name, str) and name)
    if len(given) != steps - 1 or names != given:
        raise PlanFormatError(f"the operators of {where} must be {steps - 1} names; got {describe(list(given))}")
    return names


def _valid_steps(steps: Iterable[object], where: str) -> tuple[int, ...]:
    path = tuple(steps)
    if any(isinstance(step, bool) or not isinstance(step, int) for step in path):
        raise PlanFormatError(f"the steps of {where} must be integers; got {describe(list(path))}")
    numbers = [step for step in path if isinstance(step, int)]
    ascending = all(start < end for start, end in pairwise(numbers))
    if len(numbers) < 2 or numbers[0] != 0 or not ascending:
        raise PlanFormatError(
            f"the steps of {where} must be two or more, ascend strictly and begin with 0; got {numbers}"
        )
    return tuple(numbers)


def _valid_errors(errors: Iterable[object], steps: int, where: str) -> tuple[float, ...]:
    values = tuple(errors)
    if any(isinstance(value, bool) or not isinstance(value, float | int) for value in values):
        raise PlanFormatError(f"the errors of {where} must be numbers; got {describe(list(values))}")
    numbers = tuple(float(value) for value in values if isinstance(value, float | int))
    valid = all(math.isfinite(number) and number >= 0 for number in numbers)
    if not valid or len(numbers) != steps - 1 or list(numbers) != sorted(numbers, reverse=True):
        raise PlanFormatError(
            f"the errors of {where} must be {steps - 1} finite numbers >= 0 from largest to smallest; got {numbers}"
        )
    return numbers
