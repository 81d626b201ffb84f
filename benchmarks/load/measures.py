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
    share of all requests that were served within the deadline; a request that was refused did not meet it, and
    `refused_p95_s` is how long it took to hear so.
    """
    latencies_s = np.array([answer.latency_s for answer in answers if answer.outcome == OK])
    span_s = max(answer.done_s for answer in answers) - min(answer.at_s for answer in answers)
    values = {name: _quantile(latencies_s, share) for name, share in QUANTILES.items()}
    values |= {"mean_s": float(latencies_s.mean()) if len(latencies_s) else float("nan")}
    values |= {"per_s": len(latencies_s) / span_s, "late_s": max(answer.sent_s - answer.at_s for answer in answers)}
    outcomes = [answer.outcome for answer in answers]
    values |= {outcome: float(outcomes.count(outcome)) for outcome in (OK, REFUSED, FAILED, SILENT)}
    refusals_s = np.array([answer.done_s - answer.sent_s for answer in answers if answer.outcome == REFUSED])
    values |= {"refused_p95_s": _quantile(refusals_s, 0.95)}
    computed = [answer.computed for answer in answers if answer.computed is not None]
    values |= {"computed": float(np.mean(computed)) if computed else float("nan")}
    if deadline_s is not None:
        values["met"] = float((latencies_s <= deadline_s).sum() / len(answers))
    return values


def in_turns(values: Mapping[str, float], turn_s: float) -> dict[str, float]:
    """Return the measures with latencies and rates in turns, too: what one request takes when nothing else runs."""
    turns = {name.replace("_s", "_turns"): values[name] / turn_s for name in QUANTILES}
    return {**values, **turns, "per_turn": values["per_s"] * turn_s, "turn_s": turn_s}


def latencies_turns(answers: Sequence[Answer], turn_s: float) -> list[float]:
    """Return the latency of every request that was served, so that rounds can be put together."""
    return [round(answer.latency_s / turn_s, 4) for answer in answers if answer.outcome == OK]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return the median over rounds of ours / theirs, with a 95 % bootstrap interval over rounds.

    A pair of one round shares arrivals and the machine's mood. With few rounds the interval is at most their range.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # whoever met no deadline at all
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


def pooled(rows: Sequence[Mapping[str, Any]], ours: str, load: str, share: float = 0.95) -> Iterator[dict[str, Any]]:
    """Yield a quantile of one way's latencies of all rounds together over each other way's, in turns.

    The tail of a single round hangs on its two or three slowest requests. Rounds count where both ways were measured.
    Intervals are 95 % bootstraps: of rounds, and of the requests in each.
    """
    of = _latencies(rows, load)
    for way in of if ours in of else ():
        both = [number for number in of[ours] if number in of[way]]
        if way != ours and both:
            sides = [[np.array(of[name][number]) for number in both] for name in (ours, way)]
            mine, theirs = (_quantile(np.concatenate(side), share) for side in sides)
            yield {
                "load": load,
                "measure": f"p{100 * share:g}_turns, pooled",
                "way": ours,
                "against": way,
                "ratio": mine / theirs,
                "interval": _pooled_interval(sides[0], sides[1], share),
                "ours": mine,
                "theirs": theirs,
                "rounds": len(both),
            }


def _latencies(rows: Sequence[Mapping[str, Any]], load: str) -> dict[str, dict[int, list[float]]]:
    """Return the latencies by way and round; rows of an older version have none."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if row["load"] == load and row.get("latencies_turns"):
            found.setdefault(row["way"], {})[row["round"]] = row["latencies_turns"]
    return found


def _pooled_interval(
    ours: Sequence[NDArray[np.float64]], theirs: Sequence[NDArray[np.float64]], share: float
) -> list[float]:
    rng = np.random.default_rng(0)
    quotients = []
    for _ in range(_RESAMPLES):
        rounds = rng.integers(0, len(ours), len(ours))
        mine, other = (
            _quantile(np.concatenate([rng.choice(side[at], len(side[at])) for at in rounds]), share)
            for side in (ours, theirs)
        )
        quotients.append(mine / other)
    low, high = np.quantile(quotients, (0.025, 0.975))
    return [float(low), float(high)]


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
