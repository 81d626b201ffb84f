"""What the plans of `benchmarks.far_prompts` lose, by group of prompts: means, worst cases, ratios to the oracle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_outcomes import bootstrap
from benchmarks.far_prompts.runs import METRICS
from benchmarks.far_prompts.statistics import ratio_interval
from benchmarks.far_prompts.survey import Finding

__all__ = ["compare"]

Row = dict[str, Any]
_UNITS = {"latents_l1": "mean absolute difference of final latents", "frames_l2": "RMS of decoded frames, white is 1"}


def compare(findings: Sequence[Finding], near: Sequence[str]) -> dict[str, Any]:
    """Return the tables of one benchmark run as JSON values; `near` names the groups that are not far."""
    deep = [finding for finding in findings if ("oracle", _budgets(finding)[0]) in finding.results]
    sets = {
        "near": [finding for finding in deep if finding.case.group in near],
        "far": [finding for finding in deep if finding.case.group not in near],
    }
    return {
        "levels": list(_levels(findings)),
        "over_oracle": [row for metric in METRICS for row in _over_oracle(sets, deep, metric)],
        "plans": [row for metric in METRICS for row in _plans(sets, metric)],
        "curves": {
            f"{metric} {name}": _curve(members, f"{metric}, {name} prompts", metric)
            for metric in METRICS
            for name, members in sets.items()
            if members
        },
    }


def _budgets(finding: Finding) -> list[int]:
    return sorted(budget for method, budget in finding.results if method == "shared")


def _methods(members: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(method for finding in members for method, _ in finding.results))


def _errors(members: Sequence[Finding], method: str, budget: int, metric: str) -> NDArray[np.float64]:
    return np.array([finding.results[method, budget].errors[metric] for finding in members])


def _levels(findings: Sequence[Finding]) -> Iterator[Row]:
    """Yield how large the shared plan's final errors are, over all prompts and seeds of a group."""
    for group in dict.fromkeys(finding.case.group for finding in findings):
        members = [finding for finding in findings if finding.case.group == group]
        for budget in _budgets(members[0]):
            row: Row = {"group": group, "budget": budget, "videos": len(members)}
            for metric in METRICS:
                errors = _errors(members, "shared", budget, metric)
                row |= {metric: float(errors.mean()), f"{metric}_interval": bootstrap(errors)}
            yield row


def _over_oracle(sets: dict[str, list[Finding]], deep: Sequence[Finding], metric: str) -> Iterator[Row]:
    groups = {group: [each for each in deep if each.case.group == group] for group in _groups(deep)}
    for name, members in (groups | sets).items():
        for method in _methods(members):
            known = [finding for finding in members if (method, _budgets(finding)[0]) in finding.results]
            if method != "oracle":
                yield {"metric": metric, "group": name, "method": method, **_ratios(known, method, metric)}


def _ratios(members: Sequence[Finding], method: str, metric: str) -> Row:
    """Return the ratio to the oracle at each budget, and with all budgets of a video taken together."""
    budgets = _budgets(members[0])
    mine, oracle = (
        np.array([_errors(members, each, budget, metric) for budget in budgets]) for each in (method, "oracle")
    )
    each = {str(budget): ratio_interval(*rows) for budget, *rows in zip(budgets, mine, oracle, strict=True)}
    together = ratio_interval(*(np.exp(np.log(errors).mean(axis=0)) for errors in (mine, oracle)))
    return {"videos": len(members), "budgets": each, "all": together}


def _groups(findings: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(finding.case.group for finding in findings))


def _plans(sets: dict[str, list[Finding]], metric: str) -> Iterator[Row]:
    """Yield each plan's mean and worst final error over near, and over far prompts."""
    for name, members in sets.items():
        for budget in _budgets(members[0]) if members else ():
            base = _errors(members, "shared", budget, metric)
            for method in _methods(members):
                if all((method, budget) in finding.results for finding in members):
                    errors = _errors(members, method, budget, metric)
                    yield {
                        "metric": metric,
                        "prompts": name,
                        "budget": budget,
                        "method": method,
                        "mean": float(errors.mean()),
                        "worst": float(errors.max()),
                        "mean_over_shared": float(errors.mean() / base.mean()),
                        "worst_over_shared": float(errors.max() / base.max()),
                        "ratio": ratio_interval(errors, base),
                    }


def _curve(members: Sequence[Finding], title: str, metric: str) -> Row:
    rows = []
    for method in _methods(members):
        for budget in _budgets(members[0]):
            if all((method, budget) in finding.results for finding in members):
                errors = _errors(members, method, budget, metric)
                low, high = bootstrap(errors)
                point = {"forwards": budget, "value": float(errors.mean()), "low": low, "high": high}
                rows.append({"method": method, **point})
    return {"title": title, "unit": _UNITS[metric], "rows": rows}
