"""Reads what benchmarks measured of several methods at several costs: the ``--curves`` files of the report.

One object is one chart::

    {"title": "LPIPS", "unit": "distance",
     "rows": [{"method": "minimax", "forwards": 10, "value": 0.005, "low": 0.004, "high": 0.006}, ...]}

A file holds one such object, or holds them by measure under the key ``curves``, with anything else beside it; of that,
``heading`` and ``about`` are texts that the page shows above the charts. Other keys of a row are the benchmark's own.
Where another cost than forwards is meant, ``axis`` beside the title names it, and the rows have it under ``cost``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lemica_planner.errors import PlanFormatError
from lemica_planner.pictures import Chart, Point, Series
from lemica_planner.strict_json import check_keys, describe, require_list, require_object

__all__ = ["Words", "is_ours", "read_curves", "read_words"]

_CHART_KEYS = ("title", "unit", "rows")
_FORWARDS = "forwards"
_OURS = ("lemica", "minimax")
_ROUNDED = 1e-6  # share of a value by which rounding may put it outside its interval


class Words(NamedTuple):
    """What a file says of its charts; empty where it says nothing."""

    heading: str = ""
    about: str = ""


def is_ours(method: str, named: Iterable[str] = ()) -> bool:
    """Return whether a method is drawn thick: one of those that are `named` or, if none is, by how its name begins."""
    chosen = set(named)
    return method in chosen if chosen else method.lower().startswith(_OURS)


def read_curves(text: str, where: str, ours: Iterable[str] = ()) -> dict[str, Chart]:
    """Return the charts of a file by measure; that of a single object has the name ``""``.

    Parameters
    ----------
    text : str
        JSON.
    where : str
        Names the file in messages.
    ours : iterable of str
        See `is_ours`.

    Raises
    ------
    PlanFormatError
        If the text holds no curves, or broken ones; the message names the place.
    """
    data, named = _loaded(text, where), tuple(ours)
    if "curves" not in data and "rows" in data and "title" in data:
        return {"": _chart(data, where, named)}
    if "curves" not in data:
        raise PlanFormatError(
            f"{where} holds no curves: neither title, unit and rows, nor such objects under the key 'curves'; "
            f"got the keys {sorted(data)}; give a result file that a benchmark wrote"
        )
    curves = require_object(data["curves"], f"{where}: curves")
    return {
        key: _chart(require_object(each, f"{where}: curves.{key}"), f"{where}: curves.{key}", named)
        for key, each in curves.items()
    }


def read_words(text: str, where: str) -> Words:
    """Return the heading of a file of curves, and what it says about them; raises as `read_curves`."""
    data = _loaded(text, where)
    return Words(*(_text(data[key], f"{where}: {key}") if key in data else "" for key in Words._fields))


def _loaded(text: str, where: str) -> Mapping[str, Any]:
    try:
        return require_object(json.loads(text), where)
    except (json.JSONDecodeError, RecursionError) as exc:
        raise PlanFormatError(f"{where} is not JSON ({exc}); give a result file that a benchmark wrote") from exc


def _chart(data: Mapping[str, Any], where: str, ours: tuple[str, ...]) -> Chart:
    check_keys(data, where, required=_CHART_KEYS, optional=data)
    rows = require_list(data["rows"], f"{where}.rows")
    if not rows:
        raise PlanFormatError(f"{where}.rows is empty; measure something, or remove the object")
    axis = _text(data.get("axis", _FORWARDS), f"{where}.axis")
    keys = ("cost" if "axis" in data else _FORWARDS, "value", "low", "high")
    found: dict[str, list[Point]] = {}
    for number, row in enumerate(rows):
        place = f"{where}.rows[{number}]"
        check_keys(require_object(row, place), place, required=("method", *keys), optional=row)
        found.setdefault(_text(row["method"], f"{place}.method"), []).append(_point(row, keys, place))
    series = (Series(name, tuple(sorted(points)), is_ours(name, ours)) for name, points in found.items())
    title, unit = (_text(data[key], f"{where}.{key}") for key in ("title", "unit"))
    return Chart(title, unit, axis, tuple(series))


def _point(row: Mapping[str, Any], keys: Iterable[str], where: str) -> Point:
    point = Point(*(_number(row[key], f"{where}.{key}") for key in keys))
    rounded = _ROUNDED * abs(point.value)
    if not point.low - rounded <= point.value <= point.high + rounded:
        raise PlanFormatError(
            f"{where}: value {point.value:g} is outside its interval, low {point.low:g} to high {point.high:g}"
        )
    return point


def _number(value: object, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise PlanFormatError(f"{where} must be a finite number; got {describe(value)}")
    return float(value)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise PlanFormatError(f"{where} must be a text; got {describe(value)}")
    return value
