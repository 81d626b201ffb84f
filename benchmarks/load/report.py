"""Tables, JSON and a picture of what the latency rounds measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.load.latency import CAPACITY, OVERLOAD, WAYS, Plan, share_name
from benchmarks.load.measures import compare, medians, pooled
from lemica_planner.atomic import write_text

_RANGED = "lemica"
_BATCHES = ("whole batches, one plan", "whole batches")
_LATENCIES = ("p50_turns", "p95_turns", "p99_turns", "per_turn")
_SHOWN = (*_LATENCIES, "turn_s", "computed", "met", "refused", "refused_p95_s", "failed", "silent", "late_s")


class Goal(NamedTuple):
    """What a ratio of lemica to another way should be.

    Attributes
    ----------
    load, measure, against : str
    at_least, at_most : float
    """

    load: str
    measure: str
    against: str
    at_least: float = 0.0
    at_most: float = math.inf

    def verdict(self, row: Mapping[str, Any]) -> str:
        """Return whether a ratio is so, and whether all of its interval says the same."""
        is_met, *ends = (self.at_least <= value <= self.at_most for value in (row["ratio"], *row["interval"]))
        return ("met" if is_met else "missed") + ("" if all(end == is_met for end in ends) else ", not surely")


def goals(plan: Plan) -> list[Goal]:
    """Return what this project set out to show, as far as a run measures it."""
    return [
        *(Goal("70 %", "p95_turns, pooled", way, at_most=0.67) for way in _BATCHES),
        *(Goal("70 %", "per_turn", way, at_least=1.0) for way in _BATCHES),
        *(Goal(OVERLOAD, "met", f"{way}, always {plan.ceiling}", at_least=1.5) for way in (_RANGED, "whole batches")),
    ]


def judged(plan: Plan, ratios: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the goals that were measured, each with its ratio and what to say of it."""
    found = {(row["load"], row["measure"], row["against"]): row for row in ratios}
    pairs = [(goal, found.get(goal[:3])) for goal in goals(plan)]
    return [
        {**goal._asdict(), "ratio": row["ratio"], "interval": row["interval"], "verdict": goal.verdict(row)}
        for goal, row in pairs
        if row
    ]


def summary(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return medians by load and way, and the ratios of the engine to each other way, by rounds and pooled."""
    shares = {share_name(share): _LATENCIES for share in plan.shares}
    wanted = {CAPACITY: ("per_turn",), **shares, OVERLOAD: ("met",)}
    ratios = [*compare(rows, _RANGED, wanted), *(row for load in shares for row in pooled(rows, _RANGED, load))]
    return {
        "plan": plan.settings(),
        "medians": list(medians(rows, "load", "way")),
        "ratios": ratios,
        "goals": judged(plan, ratios),
        "rows": list(rows),
    }


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print the three tables."""
    measured = Table("load", "way", "rounds", *_SHOWN, title="medians over rounds")
    for row in found["medians"]:
        measured.add_row(row["load"], row["way"], str(row["rounds"]), *(_figure(row.get(name)) for name in _SHOWN))
    console.print(measured)
    against = Table("load", "measure", "against", "ratio", "95 %", "ours", "theirs", "rounds", title="lemica / others")
    for row in found["ratios"]:
        low, high = row["interval"]
        figures = (_figure(row["ratio"]), f"{_figure(low)} to {_figure(high)}", _figure(row["ours"]))
        against.add_row(
            row["load"], row["measure"], row["against"], *figures, _figure(row["theirs"]), str(row["rounds"])
        )
    console.print(against)
    wanted = Table("load", "measure", "against", "at least", "at most", "ratio", "verdict", title="goals")
    for row in found["goals"]:
        bounds = (_figure(row["at_least"]), _figure(row["at_most"]), _figure(row["ratio"]))
        wanted.add_row(row["load"], row["measure"], row["against"], *bounds, row["verdict"])
    console.print(wanted)


def write_json(found: Mapping[str, Any], path: Path) -> None:
    """Write everything; what was not measured is null."""
    write_text(path, json.dumps(without_nan(found), indent=1) + "\n")


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Save a picture: p95 by load of each way, and the deadlines met under overload."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    shares = found["plan"]["shares"]
    for way in WAYS:
        left.plot([100 * share for share in shares], _column(found, shares, way.name), marker="o", label=way.name)
    left.set(xlabel="Poisson arrivals, % of lemica's capacity", ylabel="p95 of latency (turns)", yscale="log")
    left.grid(True, which="both", alpha=0.25)
    left.legend(frameon=False)
    met = {row["way"]: 100 * row["met"] for row in found["medians"] if row["load"] == OVERLOAD}
    _draw_met(right, met, found["plan"])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_met(axes: Any, met: Mapping[str, float], plan: Mapping[str, Any]) -> None:
    names = list(met)[::-1]
    labels = [f"lemica, {plan['floor']}..{plan['ceiling']}" if name == _RANGED else name for name in names]
    bars = axes.barh(labels, [met[name] for name in names])
    axes.bar_label(bars, fmt="%.0f %%", padding=3)
    share = 100 * plan["overload"]
    axes.set(xlabel=f"deadlines met at {share:.0f} % of the capacity at {plan['ceiling']} (%)", xlim=(0, 112))
    axes.spines[["top", "right"]].set_visible(False)


def _column(found: Mapping[str, Any], shares: Sequence[float], way: str) -> list[float]:
    by_load = {row["load"]: row["p95_turns"] for row in found["medians"] if row["way"] == way}
    return [by_load.get(share_name(share), math.nan) for share in shares]


def _figure(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3g}"


def without_nan(value: Any) -> Any:
    """Return a value as JSON can have it: what is not finite is null."""
    if isinstance(value, Mapping):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
