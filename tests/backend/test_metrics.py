"""Metrics and the request log, event by event; tests/server/test_server_metrics.py sees them in a real Triton."""

import json
import logging
import math
import threading
from collections import defaultdict

import pytest

from lemica_backend.aside import Aside
from lemica_backend.config import Log
from lemica_backend.cost_model import Work
from lemica_backend.errors import ModelLoadError
from lemica_backend.metric_families import budget_class, family_specs
from lemica_backend.metrics import Recorder
from lemica_backend.request_log import LOGGER, RequestLog
from lemica_backend.triton_config import reports_metrics
from lemica_backend.triton_metrics import triton_families
from lemica_backend.watch import Answered, Drifted, EngineLoad, NoWatcher, Refused, Started, Ticked, WorkerRestarted

LABELS = {"model": "m", "version": "1"}
STAGES = {"queue": 1.0, "encode_text": 2.0, "denoise": 3.0, "paused": 0.5, "decode": 0.25}


def answered(outcome="ok", budget="fast", *, total_s=6.75, eta_s=None, **fields):
    return Answered(outcome, budget, 6, 3, total_s, eta_s, STAGES, 7, **fields)


class Series:
    """Keeps what is written to one series."""

    def __init__(self, labels, written):
        self._key, self._written = tuple(labels.values())[2:], written

    def increment(self, value):
        assert value > 0
        self._written[self._key].append(value)

    set = observe = lambda self, value: self._written[self._key].append(value)


@pytest.fixture
def written():
    return defaultdict(lambda: defaultdict(list))


@pytest.fixture
def recorder(written):
    def make_family(spec):
        return lambda labels: Series(labels, written[spec.name])

    return Recorder(make_family, LABELS, ["slow", "fast"])


def test_an_answer_is_counted_and_timed(recorder, written):
    recorder.answered(answered(eta_s=5.4))
    recorder.answered(answered(eta_s=13.5, is_warned_of=True))
    assert written["lemica_requests_total"] == {("ok", "fast"): [1, 1]}
    assert written["lemica_quality_warnings_total"] == {("fast",): [1]}
    assert written["lemica_request_seconds"] == {("fast",): [6.75, 6.75]}
    assert written["lemica_stage_seconds"][("paused",)] == [0.5, 0.5]
    assert ("queue",) not in written["lemica_stage_seconds"]
    ratios = written["lemica_eta_error_ratio"]
    assert ratios == {("late",): [pytest.approx(0.2)], ("early",): [pytest.approx(1.0)]}


def test_an_answer_without_video_has_no_latency(recorder, written):
    recorder.answered(answered("cancelled", "3..5", eta_s=1.0))
    assert written == {"lemica_requests_total": {("cancelled", "range"): [1]}} | {
        name: {} for name in written if name != "lemica_requests_total"
    }


def test_whatever_clients_send_there_are_few_series(recorder, written):
    for budget in ("12", " fast ", "x" * 1000, "", "a..b", "full"):
        recorder.refused(Refused("invalid", "invalid", "no", budget))
    assert {budget for _, budget in written["lemica_requests_total"]} == {"number", "fast", "other", "range", "full"}
    assert written["lemica_refused_total"] == {("invalid",): [1] * 6}
    assert budget_class("٣", []) == "number"


def test_rows_are_counted_by_work(recorder, written):
    recorder.ticked(Ticked((Work("compute", 2), Work("residual", 2), Work("output", 1)), 0.5))
    recorder.ticked(Ticked((Work("residual", 2),), 0.25, (("out_of_range", 2), ("recompile", 1)), steps=4))
    recorder.ticked(Ticked((Work("compute", 3),), 0.25, (("out_of_range", 3),), steps=2))
    assert written["lemica_ticks_total"] == {}  # many a second are not written each by itself
    recorder.loaded(EngineLoad(1, 2, 3, 4, None, 5.5))
    recorder.loaded(EngineLoad(1, 2, 3, 4, None, 5.5))
    assert written["lemica_ticks_total"] == {(): [7]}
    assert written["lemica_rows_total"] == {("computed",): [8], ("reused",): [11]}
    assert written["lemica_rows_per_forward"] == {(): [2, 3, 3]}
    assert written["lemica_block_fallback_rows_total"] == {("out_of_range",): [5], ("recompile",): [1]}
    assert written["lemica_tick_seconds_total"] == {(): [1.0]}


def test_the_other_events(recorder, written):
    recorder.started(Started("9", 1.5, 2.5))
    recorder.loaded(EngineLoad(1, 2, 3, 4, None, 5.5))
    recorder.drifted(Drifted("measured", "slow", 31.0))
    recorder.drifted(Drifted("dropped", "slow"))
    recorder.worker_restarted(WorkerRestarted("cpu", "killed"))
    assert written["lemica_queue_wait_seconds"] == {("number",): [1.5]}
    assert written["lemica_first_step_seconds"] == {("number",): [2.5]}
    gauges = ("waiting_requests", "started_requests", "cached_bytes", "reserved_bytes", "backlog_seconds")
    assert [written[f"lemica_{name}"][()] for name in gauges] == [[1], [2], [3], [4], [5.5]]
    assert written["lemica_cache_limit_bytes"] == {(): [math.inf]}
    assert written["lemica_drift_checks_total"] == {("measured",): [1], ("dropped",): [1]}
    assert (written["lemica_drift_psnr_decibels"], written["lemica_drift_lpips"]) == ({("slow",): [31.0]}, {})
    assert written["lemica_worker_restarts_total"] == {(): [1]}


def test_a_model_that_is_gone_says_so_and_holds_nothing(recorder, written):
    recorder.loaded(EngineLoad(1, 2, 3, 4, 5, 6.0))
    assert written["lemica_up"][()][-1] == 1
    aside = Aside(recorder, on_close=recorder.close)
    aside.loaded(EngineLoad(1, 2, 3, 4, 5, 6.0))
    aside.close()
    gauges = ("up", "waiting_requests", "started_requests", "cached_bytes", "reserved_bytes", "backlog_seconds")
    assert [written[f"lemica_{name}"][()][-1] for name in gauges] == [0] * 6


def test_names_of_a_plan_that_are_classes_too_do_not_make_series_twice():
    labels = next(spec for spec in family_specs(["full", "number", "b", "a"]) if "budget" in spec.labels).labels
    assert labels["budget"] == ("full", "a", "b", "number", "range", "other")


def test_an_old_triton_has_no_histograms_and_says_so_once(caplog):
    class OldFamily:
        COUNTER, GAUGE = "counter", "gauge"

        def __init__(self, name, description, kind):
            assert kind in ("counter", "gauge")
            self.Metric = lambda labels: Series(labels, defaultdict(list))

    recorder = Recorder(triton_families(OldFamily), LABELS, [])
    recorder.answered(answered(budget="full", eta_s=1.0))
    assert ["24.09 is the first one" in each.message for each in caplog.records] == [True]


@pytest.mark.parametrize(("parameters", "expected"), [({}, True), ({"string_value": "no"}, False)])
def test_metrics_are_on_unless_the_parameter_says_no(parameters, expected):
    assert reports_metrics({"parameters": {"REPORT_CUSTOM_METRICS": parameters}}) is expected


def test_any_other_value_of_the_parameter_is_refused():
    with pytest.raises(ModelLoadError, match="REPORT_CUSTOM_METRICS is 'maybe'; allowed are 'yes'"):
        reports_metrics({"parameters": {"REPORT_CUSTOM_METRICS": {"string_value": "maybe"}}})


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


def test_lines_are_json_and_hold_no_line_breaks(caplog):
    log = RequestLog(Log(), LABELS)
    log.answered(answered(request_id="a\nb", client="me", eta_s=5.0))
    log.refused(Refused("unavailable", "queue_full", "later", "fast", "two", "me"))
    served, refused = map(json.loads, lines(caplog))
    assert "\n" not in lines(caplog)[0]
    assert served == {
        "event": "request",
        **LABELS,
        "request_id": "a\nb",
        "client_id": "me",
        "outcome": "ok",
        "budget": "fast",
        "seed": 7,
        "num_steps": 6,
        "computed_steps": 3,
        "queue_ms": 1000.0,
        "encode_text_ms": 2000.0,
        "denoise_ms": 3000.0,
        "paused_ms": 500.0,
        "decode_ms": 250.0,
        "total_ms": 6750.0,
        "eta_ms": 5000.0,
    }
    assert (refused["reason"], refused["error"], refused["request_id"]) == ("queue_full", "later", "two")


def test_a_priority_explains_a_long_wait(caplog):
    RequestLog(Log(), LABELS).answered(answered(priority=-3))
    assert json.loads(lines(caplog)[0])["priority"] == -3


def test_lines_may_be_pairs_that_nothing_a_client_sends_breaks(caplog):
    RequestLog(Log(format="text"), LABELS).answered(answered("failed", client='x outcome=ok\n"', message="no"))
    (line,) = lines(caplog)
    assert line.startswith(
        'event=request model=m version=1 request_id="" client_id="x outcome=ok\\n\\"" outcome=failed'
    )
    assert line.endswith("total_ms=6750.0 error=no")


@pytest.mark.parametrize(("requests", "expected"), [("all", 2), ("failures", 1), ("off", 0)])
def test_lines_may_be_left_out(caplog, requests, expected):
    log = RequestLog(Log(requests=requests), LABELS)
    log.answered(answered())
    log.answered(answered("cancelled"))
    assert len(lines(caplog)) == expected


class Broken(NoWatcher):
    def ticked(self, ticked):
        raise RuntimeError("broken")


def test_events_come_in_order_and_a_broken_watcher_is_logged_once(caplog):
    class Notes(NoWatcher):
        def __init__(self):
            self.seconds, self.threads = [], set()

        def ticked(self, ticked):
            self.seconds.append(ticked.seconds)
            self.threads.add(threading.current_thread())

    notes = Notes()
    aside = Aside(Broken(), notes)
    for seconds in range(100):
        aside.ticked(Ticked((), seconds))
    aside.close()
    assert notes.seconds == list(range(100))
    assert threading.current_thread() not in notes.threads
    assert [record.getMessage() for record in caplog.records] == ["Broken cannot take a Ticked; said once"]


@pytest.fixture(autouse=True)
def _through(caplog):
    caplog.set_level(logging.INFO, logger=LOGGER)
