"""The tables and the JSON of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.bench_outcomes import bootstrap
from benchmarks.rivals.compare import MEASURES, UNITS, Array, Curve, Ratio, at_most
from benchmarks.rivals.rival import Rival
from benchmarks.rivals.unsupported import Fault

_LOG_WIDTH = 130  # in a file nobody can widen the window


def curve_objects(curves: Sequence[Curve]) -> dict[str, dict[str, Any]]:
    """Return for each measure one object that a plot can be drawn from: rows of method, forwards, mean, 95 %."""
    return {
        name: {"title": title, "unit": UNITS[name], "rows": [row for curve in curves for row in _rows(curve, name)]}
        for name, title in MEASURES.items()
    }


def time_objects(curves: Sequence[Curve], times: Mapping[tuple[str, str], float]) -> dict[str, dict[str, Any]]:
    """Return one object as above of LPIPS by wall clock, of the settings that were timed; none if none was.

    Parameters
    ----------
    times : mapping of (str, str) to float
        By method and setting, seconds of denoising over those of a full run.
    """
    rows = [
        {"cost": times[row["method"], row["setting"]], **row}
        for curve in curves
        for row in _rows(curve, "lpips")
        if (row["method"], row["setting"]) in times
    ]
    named = {
        "title": "LPIPS (lower is better) by wall clock",
        "unit": UNITS["lpips"],
        "axis": "share of a full run's time",
    }
    return {"lpips_by_time": {**named, "rows": rows}} if rows else {}


def _rows(curve: Curve, measure: str) -> Iterator[dict[str, Any]]:
    for at, setting in enumerate(curve.settings):
        values = curve.values[measure][:, at]
        if not np.isnan(values).any():
            low, high = bootstrap(values)
            yield {
                "method": curve.method,
                "setting": setting,
                "forwards": float(curve.cost[at]),
                "value": float(values.mean()),
                "low": low,
                "high": high,
            }


def recommended_rows(base: Curve, curves: Sequence[Curve], rivals: Sequence[Rival]) -> list[dict[str, Any]]:
    """Return each rival in the settings its authors recommend, with the plan that takes at most as many forwards."""
    wanted = {(rival.method, rival.setting) for rival in rivals if rival.is_recommended}
    return [
        {
            "method": curve.method,
            "setting": setting,
            "forwards": float(curve.cost[at]),
            **{name: _mean(values[:, at]) for name, values in curve.values.items()},
            "lpips_interval": bootstrap(curve.values["lpips"][:, at]),
            "lpips_of_base_at_most_as_dear": at_most(base, float(curve.cost[at])),
        }
        for curve in curves
        for at, setting in enumerate(curve.settings)
        if (curve.method, setting) in wanted
    ]


def _mean(values: Array) -> float | None:
    """Return the mean, None where some prompts have no value: JSON knows no NaN."""
    return None if np.isnan(values).any() else float(values.mean())


def as_json(ratios: Sequence[Ratio]) -> list[dict[str, Any]]:
    """Return the ratios as JSON values."""
    return [dataclasses.asdict(ratio) for ratio in ratios]


def show_recommended(rows: Sequence[Mapping[str, Any]], base: str) -> None:
    """Print one line a recommended setting."""
    table = Table(
        box=box.SIMPLE_HEAD, title=f"Recommended settings; the last column is {base} with at most as many forwards"
    )
    for name in ("method", "setting", "forwards", "LPIPS", "95 %", "SSIM", "PSNR dB", "latents L1", "right", base):
        table.add_column(name, justify="left" if name in ("method", "setting") else "right", no_wrap=True)
    for row in rows:
        low, high = row["lpips_interval"]
        numbers = (row["lpips"], row["ssim"], row["psnr_db"], row["latents_l1"], row["attributes_right"])
        lpips, ssim, psnr, l1, right = ("-" if number is None else f"{number:.4g}" for number in numbers)
        cells = (f"{row['forwards']:.1f}", lpips, f"{low:.3g}-{high:.3g}", ssim, psnr, l1, right)
        table.add_row(row["method"], row["setting"], *cells, f"{row['lpips_of_base_at_most_as_dear']:.4g}")
    _console().print(table)


def show_ratios(title: str, curves: Sequence[Curve], ratios: Sequence[Ratio], budgets: Sequence[int]) -> None:
    """Print one line a method: its range of forwards, and its LPIPS over the plan's at each budget."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=title,
        caption="* none is that cheap: the cheapest, which costs more; - none is that dear",
    )
    for name in ("method", "forwards", *(f"B={budget}" for budget in budgets)):
        table.add_column(name, justify="left" if name == "method" else "right")
    found = {(ratio.method, ratio.budget): ratio for ratio in ratios}
    for curve in curves:
        mine = [found.get((curve.method, budget)) for budget in budgets]
        if any(mine):
            table.add_row(curve.method, _range(curve.cost), *map(_cell, mine))
    _console().print(table)


def _range(cost: Array) -> str:
    return f"{cost.min():.1f}-{cost.max():.1f}"


def _cell(ratio: Ratio | None) -> str:
    if ratio is None or ratio.ratio is None or ratio.interval is None:
        return "-"
    low, high = ratio.interval
    return f"{ratio.ratio:.2f} ({low:.2f}-{high:.2f}){'*' if ratio.uses_more else ' '}"


def _table(title: str, caption: str | None = None) -> Table:
    return Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", caption=caption, caption_justify="left")


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_LOG_WIDTH)


def show_faults(faults: Sequence[Fault]) -> None:
    """Print what does not work on this model as it is."""
    table = _table("Does not work on Latte as it is")
    for name in ("method", "tried", "what happened"):
        table.add_column(name)
    for fault in faults:
        table.add_row(*fault)
    _console().print(table)
