"""Print the tables of `benchmarks.far_prompts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["show"]

_METRIC = "frames_l2"


def show(report: Mapping[str, Any]) -> None:
    """Print final errors by group, ratios to the oracle, plans against each other, the best signals and the warning."""
    console = Console()
    for table in (
        _levels(report),
        _over_oracle(report),
        _plans(report),
        _signals(report),
        _chosen(report),
        _warning(report),
    ):
        console.print(table)


def _levels(report: Mapping[str, Any]) -> Table:
    table = Table("group", "budget", "videos", "latents_l1", "95 %", "frames_l2", "95 %", title="shared plan")
    for row in report["levels"]:
        cells = [
            cell
            for metric in ("latents_l1", "frames_l2")
            for cell in (f"{row[metric]:.4g}", _interval(row[f"{metric}_interval"]))
        ]
        table.add_row(row["group"], str(row["budget"]), str(row["videos"]), *cells)
    return table


def _over_oracle(report: Mapping[str, Any]) -> Table:
    rows = [row for row in report["over_oracle"] if row["metric"] == _METRIC]
    budgets = list(rows[0]["budgets"]) if rows else []
    table = Table("prompts", "videos", "method", *budgets, "all", "95 %", title=f"error over the oracle's, {_METRIC}")
    for row in rows:
        each = [f"{row['budgets'][budget][0]:.2f}" for budget in budgets]
        middle, *interval = row["all"]
        table.add_row(row["group"], str(row["videos"]), row["method"], *each, f"{middle:.2f}", _interval(interval))
    return table


def _plans(report: Mapping[str, Any]) -> Table:
    table = Table("prompts", "budget", "method", "mean", "worst", "mean / shared", "worst / shared", title=_METRIC)
    for row in report["plans"]:
        if row["metric"] == _METRIC:
            numbers = [f"{row[key]:.4g}" for key in ("mean", "worst", "mean_over_shared", "worst_over_shared")]
            table.add_row(row["prompts"], str(row["budget"]), row["method"], *numbers)
    return table


def _signals(report: Mapping[str, Any]) -> Table:
    """Return the signals that have intervals: the best ones of each budget."""
    table = Table("budget", "signal", "rank correlation", "95 %", "AUC", "95 %", "bad", title=f"signals, {_METRIC}")
    for row in report["signals"]:
        scores = row[_METRIC]
        if "auc_interval" in scores:
            cells = [
                cell
                for score in ("rank_correlation", "auc")
                for cell in (f"{scores[score]:.2f}", _interval(scores[f"{score}_interval"]))
            ]
            table.add_row(str(row["budget"]), row["signal"], *cells, str(scores["bad"]))
    return table


def _chosen(report: Mapping[str, Any]) -> Table:
    table = Table("budget", "metric", "chosen on one half", "rank correlation", "AUC", title="scores on the other half")
    for row in report["chosen_on_half"]:
        table.add_row(
            str(row["budget"]), row["metric"], row["signal"], f"{row['rank_correlation']:.2f}", f"{row['auc']:.2f}"
        )
    return table


def _warning(report: Mapping[str, Any]) -> Table:
    columns = ("budget", "warned above", "of those above 2 x", "above 4 x", "false alarms")
    table = Table(*columns, title=f"the server's warning (its limit is {report['warn_above']:g})")
    for row in report["warning"]:
        shares = [f"{row[key][0]} of {row[key][1]}" for key in ("above_2", "above_4", "false_alarms")]
        table.add_row(str(row["budget"]), f"{row['limit']:g}", *shares)
    return table


def _interval(ends: Sequence[float]) -> str:
    return "-".join(f"{end:.3g}" for end in ends)
