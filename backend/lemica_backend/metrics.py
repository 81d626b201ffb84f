"""Turns what the engine tells into metrics. Where these live is not known here: families are made by whoever is given.

In Triton, that is `triton_metrics.py`.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from lemica_backend.cost_model import COMPUTE
from lemica_backend.metric_families import STAGES, FamilySpec, budget_class, family_specs
from lemica_backend.watch import OK, Answered, Drifted, EngineLoad, Refused, Started, Ticked, WorkerRestarted


class Metric(Protocol):
    """One series; which of the methods work follows from its kind."""

    def increment(self, value: float) -> None:
        """Add to a counter."""

    def set(self, value: float) -> None:
        """Set a gauge."""

    def observe(self, value: float) -> None:
        """Add to a histogram."""


MakeMetric = Callable[[Mapping[str, str]], Metric]  # by its labels
MakeFamily = Callable[[FamilySpec], MakeMetric | None]  # None where such a kind cannot be had


class Recorder:
    """A watcher that keeps the metrics of one model up to date; every series exists, at 0, from the start.

    Ticks are written with the next report of the load, or answer: they come many a second, and writing takes messages
    to another process, of which a small model's steps feel each.

    Parameters
    ----------
    make_family : callable
    labels : mapping of str to str
        Of every series: ``model`` and ``version``.
    names : sequence of str
        Budgets that the plan gives names to; other ones are ``full``, ``number``, ``range`` or ``other``.
    """

    def __init__(self, make_family: MakeFamily, labels: Mapping[str, str], names: Sequence[str]) -> None:
        self._names = names
        self._ticks: list[Ticked] = []  # not written yet
        self._series: dict[tuple[str, ...], Metric] = {}
        self._families: list[MakeMetric] = []  # after the series: Triton wants them to live longer
        for spec in family_specs(names):
            make_metric = make_family(spec)
            if make_metric:
                self._families.append(make_metric)
                for values in itertools.product(*spec.labels.values()):
                    of_series = {**labels, **dict(zip(spec.labels, values, strict=True))}
                    self._series[spec.name, *values] = make_metric(of_series)

    def refused(self, refused: Refused) -> None:
        """Count it, by outcome and by reason."""
        self._count("lemica_requests_total", refused.outcome, self._class(refused.budget))
        self._count("lemica_refused_total", refused.reason)

    def started(self, started: Started) -> None:
        """Take note of how long it waited."""
        budget = self._class(started.budget)
        self._observe("lemica_queue_wait_seconds", started.queue_s, budget)
        self._observe("lemica_first_step_seconds", started.first_step_s, budget)

    def ticked(self, ticked: Ticked) -> None:
        """Keep it until it is written."""
        self._ticks.append(ticked)

    def _write_ticks(self) -> None:
        """Count rows and time."""
        ticks, self._ticks = self._ticks, []
        self._count("lemica_ticks_total", by=sum(tick.steps for tick in ticks))
        self._count("lemica_tick_seconds_total", by=sum(tick.seconds for tick in ticks))
        computed = [(sum(work.rows for work in tick.works if work.kind == COMPUTE), tick.steps) for tick in ticks]
        rows = sum(work.rows * tick.steps for tick in ticks for work in tick.works)
        entered = sum(count * steps for count, steps in computed)
        self._count("lemica_rows_total", "computed", by=entered)
        self._count("lemica_rows_total", "reused", by=rows - entered)
        for count, steps in computed:
            for _ in range(steps if count else 0):
                self._observe("lemica_rows_per_forward", count)
        self._write_fallbacks(ticks)

    def _write_fallbacks(self, ticks: Sequence[Ticked]) -> None:
        fallbacks = Counter[str]()
        for tick in ticks:
            fallbacks.update(dict(tick.fallbacks))
        for reason, rows in fallbacks.items():
            self._count("lemica_block_fallback_rows_total", reason, by=rows)

    def answered(self, answered: Answered) -> None:
        """Count it; of a video, take note of how long it took and how long it was to take."""
        self._write_ticks()
        budget = self._class(answered.budget)
        self._count("lemica_requests_total", answered.outcome, budget)
        if answered.outcome == OK:
            self._count("lemica_quality_warnings_total", budget, by=answered.is_warned_of)
            self._observe("lemica_request_seconds", answered.total_s, budget)
            for stage in STAGES:
                self._observe("lemica_stage_seconds", answered.stages_s[stage], stage)
            self._observe_eta(answered)

    def _observe_eta(self, answered: Answered) -> None:
        if answered.eta_s is not None:
            late_s = answered.total_s - answered.eta_s
            ratio = abs(late_s) / answered.total_s
            self._observe("lemica_eta_error_ratio", ratio, "late" if late_s > 0 else "early")

    def loaded(self, load: EngineLoad) -> None:
        """Set the gauges, and show that there was a report."""
        self._write_ticks()
        limit = load.cache_limit_bytes
        self._count("lemica_heartbeats_total")
        self._set("lemica_up", 1)
        self._set("lemica_waiting_requests", load.waiting)
        self._set("lemica_started_requests", load.started)
        self._set("lemica_cached_bytes", load.cached_bytes)
        self._set("lemica_reserved_bytes", load.reserved_bytes)
        self._set("lemica_cache_limit_bytes", math.inf if limit is None else limit)
        self._set("lemica_backlog_seconds", load.backlog_s)

    def drifted(self, drifted: Drifted) -> None:
        """Count it, and take note of what was measured."""
        budget = self._class(drifted.budget)
        self._count("lemica_drift_checks_total", drifted.result)
        if drifted.psnr_db is not None:
            self._observe("lemica_drift_psnr_decibels", drifted.psnr_db, budget)
        if drifted.lpips is not None:
            self._observe("lemica_drift_lpips", drifted.lpips, budget)

    def worker_restarted(self, restarted: WorkerRestarted) -> None:
        """Count it."""
        self._count("lemica_worker_restarts_total")

    def close(self) -> None:
        """Say that the model is gone: in Triton, its series stay until the server ends.

        They are not deleted: a new version of the model that is loaded already writes to the same ones.
        """
        self.loaded(EngineLoad(0, 0, 0, 0, None, 0.0))
        self._set("lemica_up", 0)

    def _class(self, budget: str) -> str:
        return budget_class(budget, self._names)

    def _count(self, name: str, *labels: str, by: float = 1) -> None:
        if by and (name, *labels) in self._series:
            self._series[name, *labels].increment(by)

    def _set(self, name: str, value: float) -> None:
        if (name,) in self._series:
            self._series[name,].set(value)

    def _observe(self, name: str, value: float, *labels: str) -> None:
        if (name, *labels) in self._series:
            self._series[name, *labels].observe(value)
