"""JSON read strictly: no duplicate keys, no NaN, no unknown or missing fields.

Every refusal is a `PlanFormatError` that names the place. Knows nothing about plans.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from lemica_planner.errors import PlanFormatError


def load_object(text: str, where: str) -> dict[str, Any]:
    """Parse `text` as one JSON object; `where` names it in messages."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (json.JSONDecodeError, RecursionError) as exc:
        raise PlanFormatError(f"{where} is not JSON ({exc}); give the text that the planner wrote") from exc
    return require_object(value, where)


def require_object(value: object, where: str) -> dict[str, Any]:
    """Return `value` if it is a JSON object."""
    if not isinstance(value, dict):
        raise PlanFormatError(f"{where} must be a JSON object; got {describe(value)}")
    return value


def require_list(value: object, where: str) -> list[Any]:
    """Return `value` if it is a JSON array."""
    if not isinstance(value, list):
        raise PlanFormatError(f"{where} must be a JSON array; got {describe(value)}")
    return value


def check_keys(
    data: Mapping[str, Any], where: str, *, required: Collection[str], optional: Collection[str] = ()
) -> None:
    """Refuse keys outside `required` and `optional`, and keys of `required` that are missing."""
    unknown = sorted(set(data) - set(required) - set(optional))
    if unknown:
        raise PlanFormatError(
            f"{where} has unknown keys {unknown}; allowed: {sorted({*required, *optional})}; remove them"
        )
    missing = sorted(set(required) - set(data))
    if missing:
        raise PlanFormatError(f"{where} lacks the keys {missing}; required: {sorted(required)}; add them")


def describe(value: object) -> str:
    """Return a value and its type, shortened, for a message."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def canonical(value: object) -> str:
    """Return compact JSON with sorted keys: the same value always gives the same text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    doubled = sorted({key for key in keys if keys.count(key) > 1})
    if doubled:
        raise PlanFormatError(f"the JSON names {doubled} more than once; keep one of each")
    return dict(pairs)


def _refuse_constant(name: str) -> NoReturn:
    raise PlanFormatError(f"the JSON holds {name}; only finite numbers are allowed")
