"""One budget of a cache plan: the steps to compute, and what they are predicted to cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lemica_planner.errors import PlanFormatError
from lemica_planner.strict_json import check_keys, describe, require_list

__all__ = ["PlanEntry"]

_ENTRY_KEYS = ("steps", "predicted_error", "errors")


@dataclass(frozen=True)
class PlanEntry:
    """The steps of one budget.

    Attributes
    ----------
    steps : tuple of int
        The computed steps, strictly ascending from 0; at every other step the last computed one is reused.
    errors : tuple of float or None
        The path's edge weights from largest to smallest, ``len(steps) - 1`` of them; None if never measured.
    """

    steps: tuple[int, ...]
    errors: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        where = f"the entry of {len(self.steps)} steps"
        object.__setattr__(self, "steps", _valid_steps(self.steps, where))
        if self.errors is not None:
            object.__setattr__(self, "errors", _valid_errors(self.errors, len(self.steps), where))

    @property
    def budget(self) -> int:
        """Number of computed steps."""
        return len(self.steps)

    @property
    def predicted_error(self) -> float | None:
        """The worst edge's error, None if never measured."""
        return None if self.errors is None else self.errors[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as JSON values."""
        errors = None if self.errors is None else list(self.errors)
        return {"steps": list(self.steps), "predicted_error": self.predicted_error, "errors": errors}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> PlanEntry:
        """Build from the parsed JSON of `to_dict`; `where` names the place in messages."""
        check_keys(data, where, required=_ENTRY_KEYS)
        errors = None if data["errors"] is None else tuple(require_list(data["errors"], f"{where}.errors"))
        entry = cls(tuple(require_list(data["steps"], f"{where}.steps")), errors)
        if data["predicted_error"] != entry.predicted_error:
            raise PlanFormatError(
                f"{where}.predicted_error must be the largest of its errors, {entry.predicted_error}; "
                f"got {describe(data['predicted_error'])}"
            )
        return entry


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
