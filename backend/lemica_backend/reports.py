"""What the server reports of a model: metrics, and a line in the log for every request."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lemica_backend.aside import Aside
from lemica_backend.config import ModelConfig
from lemica_backend.metrics import Recorder
from lemica_backend.request_log import RequestLog
from lemica_backend.triton_config import Config, cache_plan, reports_metrics
from lemica_backend.triton_metrics import triton_families
from lemica_planner import CachePlan, PlannerError

_log = logging.getLogger(__name__)


def open_reports(args: Mapping[str, str], triton_config: Config, config: ModelConfig, metric_family: Any) -> Aside:
    """Return the watcher that an engine is to be given; it has to be closed after the engine.

    Parameters
    ----------
    args : mapping of str to str
        What Triton's `initialize` gets.
    triton_config : mapping
        The model's own, checked.
    config : ModelConfig
    metric_family : type
        ``triton_python_backend_utils.MetricFamily``.
    """
    labels = {"model": args["model_name"], "version": args["model_version"]}
    log = RequestLog(config.log, labels)
    recorder = _recorder(metric_family, labels, triton_config) if reports_metrics(triton_config) else None
    return Aside(log, recorder, on_close=recorder.close) if recorder else Aside(log)


def _recorder(metric_family: Any, labels: Mapping[str, str], triton_config: Config) -> Recorder | None:
    try:
        return Recorder(triton_families(metric_family), labels, _names(cache_plan(triton_config)))
    except Exception as error:  # a server that was built without metrics serves all the same
        _log.warning("no metrics of %s: Triton says %s", labels["model"], error)
        return None


def _names(plan_json: str | None) -> tuple[str, ...]:
    try:
        return tuple(CachePlan.from_json(plan_json).names) if plan_json else ()
    except PlannerError:
        return ()  # the model will not load, and say why
