"""Families of metrics in Triton; its Python module is not imported here, the class that makes families is given."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Mapping
from typing import Any

from lemica_backend.metric_families import FamilySpec
from lemica_backend.metrics import MakeFamily, MakeMetric, Metric

_log = logging.getLogger(__name__)


def triton_families(metric_family: Any) -> MakeFamily:
    """Return what makes families with ``triton_python_backend_utils.MetricFamily``.

    Before Triton 24.09 there are no histograms: these are left out, and the log says so once.
    """
    kinds = {kind: getattr(metric_family, kind.upper(), None) for kind in ("counter", "gauge", "histogram")}
    if kinds["histogram"] is None:
        _log.warning("this Triton has no histograms, 24.09 is the first one: latency metrics are left out")

    def make_family(spec: FamilySpec) -> MakeMetric | None:
        kind = kinds[spec.kind]
        if kind is None:
            return None
        family = metric_family(name=spec.name, description=spec.description, kind=kind)
        buckets = {"buckets": list(spec.buckets)} if spec.buckets else {}

        def make_metric(labels: Mapping[str, str]) -> Metric:
            metric: Metric = family.Metric(labels=dict(labels), **buckets)
            _never_free(metric)
            return metric

        _never_free(family)
        return make_metric

    return make_family


def _never_free(made: object) -> None:
    """Keep an object of Triton's until the process is gone.

    Freeing one takes its series from the server, which a new version of the model may write to already. And when the
    process exits Python frees what is left after Triton has taken its shared memory away: a segmentation fault.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
