"""What is read off the answers of a load, and ratios between servers over rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.load.client import FAILED, OK, REFUSED, SILENT, Answer

QUANTILES = {"p50_s": 0.5, "p95_s": 0.95, "p99_s": 0.99}
_RESAMPLES = 2000


def measured(answers: Sequence[Answer], deadline_s: float | None = None) -> dict[str, float]:
    """Return latencies in seconds, requests a second, and counts of outcomes.

    A latency is NaN where nothing was served. `per_s` counts from the first arrival to the last answer. `met` is the
    share of all requests that were served within the deadline; a request that was refused did not meet it.
    """
    latencies_s = np.array([answer.latency_s for answer in answers if answer.outcome == OK])
    span_s = max(answer.done_s for answer in answers) - min(answer.at_s for answer in answers)
    values = {name: _quantile(latencies_s, share) for name, share in QUANTILES.items()}
    values |= {"mean_s": float(latencies_s.mean()) if len(latencies_s) else float("nan")}
    values |= {"per_s": len(latencies_s) / span_s, "late_s": max(answer.sent_s - answer.at_s for answer in answers)}
    outcomes = [answer.outcome for answer in answers]
    values |= {outcome: float(outcomes.count(outcome)) for outcome in (OK, REFUSED, FAILED, SILENT)}
    computed = [answer.computed for answer in answers if answer.computed is not None]
    values |= {"computed": float(np.mean(computed)) if computed else float("nan")}
    if deadline_s is not None:
        values["met"] = float((latencies_s <= deadline_s).sum() / len(answers))
    return values


def in_turns(values: Mapping[str, float], turn_s: float) -> dict[str, float]:
    """Return the measures with latencies and rates in turns, too: what one request takes when nothing else runs."""
    turns = {name.replace("_s", "_turns"): values[name] / turn_s for name in QUANTILES}
    return {**values, **turns, "per_turn": values["per_s"] * turn_s, "turn_s": turn_s}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return the median over rounds of ours / theirs, with a 95 % bootstrap interval over rounds.

    A pair of one round shares arrivals and the machine's mood. With few rounds the interval is at most their range.
    """
    quotients = np.asarray(ours, dtype=float) / np.asarray(theirs, dtype=float)
    picks = np.random.default_rng(0).integers(0, len(quotients), (_RESAMPLES, len(quotients)))
    low, high = np.quantile(np.median(quotients[picks], axis=1), (0.025, 0.975))
    return {
        "ratio": float(np.median(quotients)),
        "interval": [float(low), float(high)],
        "ours": float(np.median(ours)),
        "theirs": float(np.median(theirs)),
        "rounds": len(quotients),
    }


def medians(rows: Sequence[Mapping[str, Any]], *by: str) -> Iterator[dict[str, Any]]:
    """Yield the medians over rounds of every measure, by some columns, in the order of their first rows."""
    for key, group in _groups(rows, *by).items():
        names = [name for name, value in group[0].items() if isinstance(value, float)]
        values = {name: float(np.median([row[name] for row in group])) for name in names}
        yield {**dict(zip(by, key, strict=True)), "rounds": len(group), **values}


def compare(
    rows: Sequence[Mapping[str, Any]], ours: str, measures: Mapping[str, Sequence[str]]
) -> Iterator[dict[str, Any]]:
    """Yield the ratios of one way to every other one, under each load, round by round.

    Parameters
    ----------
    rows : sequence of mapping
        With ``load``, ``way``, ``round`` and the measures.
    ours : str
        A way.
    measures : mapping of str to sequence of str
        By load.
    """
    for load, names in measures.items():
        ways = dict.fromkeys(row["way"] for row in rows if row["load"] == load)
        for way in ways if ours in ways else ():
            for name in names if way != ours else ():
                pairs = list(_pairs(rows, load, ours, way, name))
                if pairs:
                    yield {
                        "load": load,
                        "measure": name,
                        "way": ours,
                        "against": way,
                        **ratio(*zip(*pairs, strict=True)),
                    }


def _pairs(
    rows: Sequence[Mapping[str, Any]], load: str, ours: str, theirs: str, name: str
) -> Iterator[tuple[float, float]]:
    by_round = {(row["round"], row["way"]): row[name] for row in rows if row["load"] == load}
    for number in dict.fromkeys(row["round"] for row in rows):
        first, second = by_round.get((number, ours)), by_round.get((number, theirs))
        if first is None or second is None:
            continue  # a round that was cut off has one side
        if np.isfinite(first) and np.isfinite(second):
            yield first, second


def _groups(rows: Sequence[Mapping[str, Any]], *by: str) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    key: Callable[[Mapping[str, Any]], tuple[Any, ...]] = lambda row: tuple(row[name] for name in by)  # noqa: E731
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _quantile(values: NDArray[np.float64], share: float) -> float:
    """Return the smallest value that at least this share does not exceed; no value is made up between two."""
    return float(np.quantile(values, share, method="inverted_cdf")) if len(values) else float("nan")
