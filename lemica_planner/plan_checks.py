"""What a server can check while it runs a plan: how far off its forecasts are, against what calibration saw.

At a computed step the values that a forecast would have been made of are still there. What the forecast misses says how
well this request is like those that the plan was calibrated on, and costs no forward.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemica_planner.candidates import Candidates
from lemica_planner.errors import PlanFormatError
from lemica_planner.forecast import fit_weights
from lemica_planner.plan_entry import PlanEntry
from lemica_planner.strict_json import check_keys, describe, require_list, require_object
from lemica_planner.switches import may_look_back

__all__ = ["Check", "Checks", "checks_from_dict", "checks_of", "checks_to_dict"]

_KEYS = ("part", "usual", "weights")
_SMALLEST_SHARE = 1e-12  # of the mean square of the value: below it, products of float32 values say nothing
_DIGITS = 4


class Check(NamedTuple):
    """What would be forecast for a computed step, and how far off that usually is.

    Attributes
    ----------
    part : str
        Of a step's value: a key of `lemica_planner.ReplaySession.grams`, such as ``cond``.
    usual : float
        Root mean square over elements and calibration samples of the value less its forecast.
    weights : tuple of float
        Of the values of the computed steps before it, the oldest first.
    """

    part: str
    usual: float
    weights: tuple[float, ...]


Checks = Mapping[tuple[int, ...], Check]  # by the computed steps that the forecast looks at, and the step it is for


def checks_of(candidates: Candidates, entries: Iterable[PlanEntry]) -> dict[tuple[int, ...], Check]:
    """Return the check of every computed step that follows steps of a fitted operator, from the mean products alone.

    With G the matrix of products, known steps K and weights w, the mean square of what the forecast of step e misses
    is ``(-1, w) G[(e, K), (e, K)] (-1, w)``.
    """
    found = {}
    for entry in entries:
        for at, step in enumerate(entry.steps[1:], start=1):
            operator = candidates.operators.get(entry.operators[at - 1]) if entry.operators else None
            if operator is None or not operator.fits:
                continue
            recent = entry.steps[max(0, at - 1 - operator.looks_back) : at]
            known = tuple(one for one in recent if may_look_back(one, step, candidates.switches))
            check = _check(operator.fits[0], candidates.grams[operator.fits[0]], known, step) if known else None
            if check:
                found[*known, step] = check
    return found


def _check(part: str, gram: NDArray[np.float64], known: tuple[int, ...], step: int) -> Check | None:
    weights = fit_weights(gram, known, step)
    among, signed = [step, *known], np.array([-1.0, *weights])
    mean_square = float(signed @ gram[np.ix_(among, among)] @ signed)
    if mean_square <= _SMALLEST_SHARE * gram[step, step]:
        return None
    return Check(part, float(f"{math.sqrt(mean_square):.{_DIGITS}g}"), weights)


def checks_to_dict(checks: Checks) -> dict[str, Any]:
    """Return the checks as JSON values."""
    return {
        ",".join(map(str, steps)): {"part": check.part, "usual": check.usual, "weights": list(check.weights)}
        for steps, check in sorted(checks.items())
    }


def checks_from_dict(data: Mapping[str, Any]) -> dict[tuple[int, ...], Check]:
    """Build from the parsed JSON of `checks_to_dict`.

    Raises
    ------
    PlanFormatError
        If a key is no ascending list of steps, or a check has wrong values; it names the place.
    """
    return {_steps(key): _parsed(require_object(value, f"checks.{key}"), key) for key, value in data.items()}


def _steps(key: str) -> tuple[int, ...]:
    parts = key.split(",")
    steps = tuple(int(part) for part in parts) if all(part.isascii() and part.isdigit() for part in parts) else ()
    if len(steps) < 2 or list(steps) != sorted(set(steps)):
        raise PlanFormatError(f"checks must be keyed by ascending steps, such as '3,5,8'; got {key!r}")
    return steps


def _parsed(data: Mapping[str, Any], key: str) -> Check:
    where = f"checks.{key}"
    check_keys(data, where, required=_KEYS)
    weights = require_list(data["weights"], f"{where}.weights")
    is_right = isinstance(data["part"], str) and _is_number(data["usual"]) and data["usual"] > 0
    if not is_right or not all(map(_is_number, weights)) or len(weights) != key.count(","):
        raise PlanFormatError(
            f"{where} must have the name of a part, a usual miss > 0 and a finite weight for each step but the last; "
            f"got {describe(dict(data))}"
        )
    return Check(data["part"], float(data["usual"]), tuple(map(float, weights)))


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
