"""The metrics of a model: names, kinds, labels, buckets. docs/operator.md describes each; a test compares the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]

FULL, NUMBER, RANGE, OTHER = "full", "number", "range", "other"  # budgets that are not names of the plan
OUTCOMES = ("ok", "invalid", "cancelled", "deadline", "unavailable", "failed")
STAGES = ("encode_text", "denoise", "paused", "decode")

# Videos take from a tenth of a second to many minutes.
_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0)
_ROWS = (1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
_RATIOS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_DECIBELS = (10.0, 15.0, 20.0, 22.5, 25.0, 27.5, 30.0, 32.5, 35.0, 40.0, 45.0, 50.0, 60.0)
_DISTANCES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)


class FamilySpec(NamedTuple):
    """One family of metrics.

    Attributes
    ----------
    name : str
        In base units; counters end in ``_total``.
    kind : str
    description : str
    labels : mapping of str to sequence of str
        Beside ``model`` and ``version``: their names, and every value that they may take.
    buckets : sequence of float
        Upper bounds, for a histogram.
    """

    name: str
    kind: Kind
    description: str
    labels: Mapping[str, Sequence[str]]
    buckets: Sequence[float] = ()


def family_specs(names: Sequence[str]) -> tuple[FamilySpec, ...]:
    """Return all families, for a plan with such names of budgets."""
    served = (FULL, *sorted(set(names) - {FULL, NUMBER, RANGE, OTHER}), NUMBER, RANGE)
    return (*_counters((*served, OTHER), served), *_gauges(), *_histograms(served))


def _counters(budgets: Sequence[str], served: Sequence[str]) -> tuple[FamilySpec, ...]:
    rows = "Branch rows by what was done for them: the block stack, or a cached value"
    return (
        FamilySpec("lemica_requests_total", "counter", "Requests by outcome", {"outcome": OUTCOMES, "budget": budgets}),
        FamilySpec(
            "lemica_refused_total",
            "counter",
            "Requests that were not accepted, by reason",
            {"reason": ("invalid", "queue_full", "deadline", "closing")},
        ),
        FamilySpec(
            "lemica_quality_warnings_total", "counter", "Videos whose info has a quality_warning", {"budget": served}
        ),
        FamilySpec("lemica_rows_total", "counter", rows, {"work": ("computed", "reused")}),
        FamilySpec(
            "lemica_block_fallback_rows_total",
            "counter",
            "Computed rows that the block engine left to the eager one, by reason",
            {"reason": ("out_of_range", "recompile")},
        ),
        FamilySpec("lemica_ticks_total", "counter", "Steps of one or more requests together", {}),
        FamilySpec("lemica_tick_seconds_total", "counter", "Time spent in ticks", {}),
        FamilySpec("lemica_heartbeats_total", "counter", "Reports of the engine; one comes at least every second", {}),
        FamilySpec("lemica_worker_restarts_total", "counter", "Worker processes that died and were started again", {}),
        FamilySpec(
            "lemica_drift_checks_total",
            "counter",
            "Served requests kept to be computed in full, by what became of it",
            {"result": ("measured", "dropped", "failed")},
        ),
    )


def _gauges() -> tuple[FamilySpec, ...]:
    gauges = {
        "lemica_up": "1 while the model is loaded, 0 once it was unloaded",
        "lemica_waiting_requests": "Accepted requests without their first step",
        "lemica_started_requests": "Requests with their first step and without their answer",
        "lemica_cached_bytes": "What the step caches hold",
        "lemica_reserved_bytes": "What the step caches hold at most, if nothing else starts",
        "lemica_cache_limit_bytes": "limits.cache_bytes; infinite if there is none",
        "lemica_backlog_seconds": "What is left of all requests, one after another",
    }
    return tuple(FamilySpec(name, "gauge", text, {}) for name, text in gauges.items())


def _histograms(budgets: Sequence[str]) -> tuple[FamilySpec, ...]:
    by_budget = {"budget": budgets}
    return (
        FamilySpec("lemica_queue_wait_seconds", "histogram", "From arrival to the start", by_budget, _SECONDS),
        FamilySpec(
            "lemica_first_step_seconds", "histogram", "From arrival to the end of the first step", by_budget, _SECONDS
        ),
        FamilySpec("lemica_request_seconds", "histogram", "From arrival to the video", by_budget, _SECONDS),
        FamilySpec("lemica_stage_seconds", "histogram", "Stages of served requests", {"stage": STAGES}, _SECONDS),
        FamilySpec("lemica_rows_per_forward", "histogram", "Branch rows in one run of the block stack", {}, _ROWS),
        FamilySpec(
            "lemica_eta_error_ratio",
            "histogram",
            "How far the time predicted at acceptance was off, over the time it took",
            {"direction": ("early", "late")},
            _RATIOS,
        ),
        FamilySpec(
            "lemica_drift_psnr_decibels",
            "histogram",
            "Frames as served against the full computation",
            by_budget,
            _DECIBELS,
        ),
        FamilySpec("lemica_drift_lpips", "histogram", "The same, as perceptual distance", by_budget, _DISTANCES),
    )


def budget_class(budget: str, names: Sequence[str]) -> str:
    """Return the label of a budget as it was asked for; there are few, whatever clients send.

    Examples
    --------
    >>> [budget_class(text, ["fast"]) for text in ("fast", "full", "12", "fast..full", "anything", "")]
    ['fast', 'full', 'number', 'range', 'other', 'other']
    """
    name = budget.strip()
    if name == FULL or name in names:
        return name
    if name.isdecimal():
        return NUMBER
    return RANGE if ".." in name else OTHER
