"""How often the server's own warning is right: its ``forecast_miss`` against the request's final error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.far_prompts.plans import Rivals
from benchmarks.far_prompts.runs import Runs
from benchmarks.far_prompts.survey import Finding
from benchmarks.far_prompts.watch import Seen
from lemica_backend.config import ModelConfig
from lemica_planner import PlanEntry
from lemica_planner.plan_checks import Checks, checks_of

__all__ = ["judge_warning"]

_LIMITS = (1.1, 1.2, 1.3, 1.4, 1.5, 2.0)
_TOO_MUCH = (2.0, 4.0)


def judge_warning(findings: Sequence[Finding], rivals: Rivals, runs: Runs) -> dict[str, Any]:
    """Return, by budget and limit, how many videos are warned of, and how many of those that lose too much."""
    rows = []
    for at, (budget, way) in enumerate(rivals.shared.items()):
        checks = checks_of(rivals.graph.candidates, [way.entry])
        calibration = [runs.results(sample, list(rivals.shared.values()))[at] for sample in rivals.graph.samples]
        metric = rivals.graph.provenance.metric or "latents_l1"
        usual = float(np.mean([result.errors[metric] for result in calibration]))
        mine = [each.results["shared", budget] for each in findings if each.case.sample not in rivals.graph.samples]
        misses = np.array([_miss(result.seen, way.entry, checks) for result in mine])
        ratios = np.array([result.errors[metric] / usual for result in mine])
        rows += list(_rows(budget, misses, ratios))
    return {"warning": rows, "warn_above": ModelConfig().warn_above}


def _rows(budget: int, misses: NDArray[np.float64], ratios: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    for limit in _LIMITS:
        warned = misses > limit
        found = {
            f"above_{much:g}": [int((warned & (ratios > much)).sum()), int((ratios > much).sum())] for much in _TOO_MUCH
        }
        fine = ratios <= _TOO_MUCH[0]
        yield {"budget": budget, "limit": limit, **found, "false_alarms": [int((warned & fine).sum()), int(fine.sum())]}


def _miss(seen: Seen, entry: PlanEntry, checks: Checks) -> float:
    """Return what `lemica_backend.step_cache.StepCache.forecast_miss` returns in the server."""
    usual = {steps[-1]: check.usual for steps, check in checks.items()}
    logs = [np.log(seen[step]["own"]["cond"] / usual[step]) for step in entry.steps[1:] if step in usual]
    return float(np.exp(np.mean(logs)))
