"""Metrics and the request log of a real server: what was sent is what is counted, and every name is documented."""

import json
import re
import time
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from lemica_backend.triton_server import TritonServer
from tests.server import repository
from tests.server.callers import Caller
from tests.server.scrape import Scrape, scrape_until

pytestmark = pytest.mark.server
ROOT = Path(__file__).parents[2]
CACHE_BYTES = 10_000_000
LONG = {"prompt": "a", "num_inference_steps": 1000}  # many seconds
ROWS = 2  # branches of a request with guidance


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("metrics_log") / "server.log"


@pytest.fixture(scope="module")
def server(tmp_path_factory, log):
    folder = tmp_path_factory.mktemp("metered")
    repository.make_planned_model(folder / "tiny")
    model_json = folder / "tiny" / "1" / "model.json"
    settings = json.loads(model_json.read_text())
    settings["limits"] |= {"max_active": 1, "max_queue": 3, "cache_bytes": CACHE_BYTES}
    settings |= {"scheduling": {"drift_share": 1.0}}
    model_json.write_text(json.dumps(settings))
    off = 'parameters { key: "REPORT_CUSTOM_METRICS" value { string_value: "no" } }'
    repository.make_model(
        folder / "unmetered", config=repository.BARE_CONFIG + off, settings={"log": {"format": "text"}}
    )
    with TritonServer(folder, log=log) as server:
        server.wait_ready(timeout_s=300)
        yield server


@pytest.fixture(scope="module")
def caller(server):
    caller = Caller("grpc", server)
    yield caller
    caller.close()


@pytest.fixture(scope="module")
def sent(server, caller):
    """Requests of every outcome; returns the metrics once all of them are counted."""
    assert Scrape(server).by("lemica_requests_total", "outcome", "budget") == {}
    for budget in ("full", "fast", "fast", "4", "fast..slow"):
        caller.infer(prompt="a", seed=1, budget=budget)
    caller.infer(prompt=["a", "b"], seed=[1, 2])
    for values in ({"seed": -1}, {"budget": "unheard of"}, {"num_inference_steps": 5, "budget": "fast"}):
        caller.refusal(prompt="a", request_id="bad", **values)
    caller.refusal(prompt="a", budget="fast", deadline_ms=1)
    caller.refusal(prompt="a", guidance_scale=3e38, seed=11, request_id="blown up")  # in its first step
    caller.refusal(**LONG, timeout=300_000)
    scrape_until(server, lambda scrape: scrape.value("lemica_started_requests") == 0)
    running = [begin_long(caller)]
    scrape_until(server, lambda scrape: scrape.value("lemica_started_requests") == 1)  # the queue is for the others
    running += [begin_long(caller) for _ in range(3)]
    scrape_until(server, lambda scrape: scrape.value("lemica_waiting_requests") == 3)
    caller.refusal(prompt="a", budget="slow")
    for call in running[1:]:
        call.cancel()
    scrape_until(server, lambda scrape: scrape.value("lemica_waiting_requests") == 0)  # so that none of them starts
    running[0].cancel()
    for budget in ("fast", "slow"):  # with time to compute them in full afterwards
        caller.infer(prompt="a", seed=3, budget=budget)
        scrape_until(server, lambda scrape, name=budget: measured(scrape).get((name,), 0) > 0)
    return scrape_until(server, lambda scrape: scrape.value("lemica_requests_total") >= sum(EXPECTED.values()))


def begin_long(caller):
    return caller.client.async_infer("tiny", caller.tensors(**LONG), ignored)


def ignored(result, error):
    """Take an answer that does not matter here."""


def measured(scrape):
    return scrape.by("lemica_drift_psnr_decibels_count", "budget")


def checks(scrape):
    return {result: value for (result,), value in scrape.by("lemica_drift_checks_total", "result").items()}


EXPECTED = {
    ("ok", "full"): 3,  # two of them rows of one request
    ("ok", "fast"): 3,
    ("ok", "slow"): 1,
    ("ok", "number"): 1,
    ("ok", "range"): 1,
    ("invalid", "other"): 2,  # one could not be read, one has no such budget
    ("invalid", "fast"): 1,
    ("unavailable", "fast"): 1,
    ("unavailable", "slow"): 1,
    ("failed", "full"): 1,
    ("deadline", "full"): 1,
    ("cancelled", "full"): 4,
}
SERVED = {budget: count for (outcome, budget), count in EXPECTED.items() if outcome == "ok"}


def test_requests_are_counted_by_outcome_and_budget(sent):
    assert sent.by("lemica_requests_total", "outcome", "budget") == EXPECTED


def test_refusals_are_counted_by_reason(sent):
    assert sent.by("lemica_refused_total", "reason") == {("invalid",): 3, ("deadline",): 1, ("queue_full",): 1}


def test_latencies_are_observed_once_a_video(sent):
    assert sent.by("lemica_request_seconds_count", "budget") == {(budget,): count for budget, count in SERVED.items()}
    videos = sum(SERVED.values())
    stages = ("encode_text", "denoise", "paused", "decode")
    assert sent.by("lemica_stage_seconds_count", "stage") == {(stage,): videos for stage in stages}
    assert sent.value("lemica_eta_error_ratio_count") == videos
    whole = sent.value("lemica_request_seconds_sum")
    assert 0 < sent.value("lemica_stage_seconds_sum") < whole
    for name in ("lemica_queue_wait_seconds", "lemica_first_step_seconds"):
        started = videos + 2  # past its limit, and the first of those that were cancelled; one failed in its first step
        assert sent.value(f"{name}_count") == started
    assert sent.value("lemica_queue_wait_seconds_sum") < sent.value("lemica_first_step_seconds_sum")


def test_rows_and_ticks_are_counted(server, caller):
    before = Scrape(server)
    caller.infer(prompt="a", seed=1, budget="fast")
    after = scrape_until(server, lambda scrape: grown(before, scrape, "lemica_ticks_total") >= repository.STEPS)
    assert grown(before, after, "lemica_ticks_total") == repository.STEPS
    computed = len(repository.FAST)
    assert grown(before, after, "lemica_rows_total", work="computed") == ROWS * computed
    assert grown(before, after, "lemica_rows_total", work="reused") == ROWS * (repository.STEPS - computed)
    assert grown(before, after, "lemica_rows_per_forward_count") == computed
    assert grown(before, after, "lemica_rows_per_forward_sum") == ROWS * computed
    assert grown(before, after, "lemica_tick_seconds_total") > 0


def grown(before, after, name, **labels):
    return after.value(name, **labels) - before.value(name, **labels)


def test_drift_is_measured_by_budget(sent):
    counts = measured(sent)
    assert sum(counts.values()) == checks(sent)["measured"]
    assert 0 < sent.value("lemica_drift_psnr_decibels_sum", budget="fast") < 100 * counts["fast",]
    assert counts["slow",] >= 1
    assert "failed" not in checks(sent)


def test_gauges_follow_what_is_held(server, caller, sent):
    assert sent.value("lemica_cache_limit_bytes") == CACHE_BYTES
    calls = [caller.client.async_infer("tiny", caller.tensors(**LONG), ignored) for _ in range(2)]
    both = ("lemica_started_requests", "lemica_waiting_requests")
    held = scrape_until(server, lambda scrape: [scrape.value(name) for name in both] == [1, 1])
    assert held.value("lemica_backlog_seconds") > 0
    for call in calls:
        call.cancel()
    names = ("lemica_waiting_requests", "lemica_started_requests", "lemica_cached_bytes", "lemica_reserved_bytes")
    idle = scrape_until(server, lambda scrape: not any(scrape.value(name) for name in names))
    assert idle.value("lemica_backlog_seconds") == 0
    beating = scrape_until(server, lambda scrape: grown(idle, scrape, "lemica_heartbeats_total") >= 2)
    assert beating.value("lemica_worker_restarts_total") == 0


def test_every_series_says_whose_it_is_and_a_model_may_have_none(sent, caller):
    assert caller.info("unmetered", prompt="a")
    for name, kind in sent.kinds.items():
        for labels in sent.labels(f"{name}_count" if kind == "histogram" else name):
            assert (labels["model"], labels["version"]) == ("tiny", "1")


def test_names_follow_the_conventions_and_are_all_documented(sent):
    documented = dict(re.findall(r"^\| `(lemica_\w+)` \| (\w+) \|", (ROOT / "docs" / "operator.md").read_text(), re.M))
    assert documented == sent.kinds
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in sent.kinds.items())


def test_dashboard_and_alerts_ask_for_what_is_exported(sent):
    exported = {name for name, kind in sent.kinds.items() if kind != "histogram"}
    exported |= {
        f"{name}_{part}"
        for name, kind in sent.kinds.items()
        if kind == "histogram"
        for part in ("bucket", "sum", "count")
    }
    asked = {path.name: names_in(path) for path in (ROOT / "deploy").rglob("*") if path.is_file()}
    assert {name for names in asked.values() for name in names} <= exported
    assert len(asked["lemica.json"]) > 10
    assert len(asked["alerts.yaml"]) > 5
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked["lemica.json"]}
    assert families == set(sent.kinds)  # the dashboard shows everything


def names_in(path):
    return set(re.findall(r"\blemica_\w+", path.read_text()))


def test_every_request_has_its_line_in_the_log(sent, log):
    lines = [json.loads(line) for line in request_lines(log) if line.startswith("{")][: sum(EXPECTED.values())]
    outcomes = [line["outcome"] for line in lines]
    assert {outcome: outcomes.count(outcome) for outcome in outcomes} == by_outcome()
    failed = next(line for line in lines if line["outcome"] == "failed")
    assert (failed["request_id"], failed["budget"], failed["version"]) == ("blown up", "full", "1")
    assert "not finite" in failed["error"]
    served = next(line for line in lines if line["outcome"] == "ok" and line["budget"] == "fast")
    assert (served["seed"], served["num_steps"], served["computed_steps"]) == (1, repository.STEPS, 3)
    assert served["total_ms"] > served["denoise_ms"] > 0
    assert [line["request_id"] for line in lines if line["outcome"] == "invalid"] == ["bad"] * 3


def request_lines(log):
    """Return what follows Triton's own part of a line, which it quotes as a JSON string."""
    texts = [line.partition("] ")[2] for line in log.read_text().splitlines() if "lemica.requests: " in line]
    return [json.loads(text).removeprefix("lemica.requests: ") for text in texts]


def by_outcome():
    totals = {}
    for (outcome, _), count in EXPECTED.items():
        totals[outcome] = totals.get(outcome, 0) + count
    return totals


def test_the_log_may_be_key_value_pairs(caller, log):
    with pytest.raises(InferenceServerException):
        caller.infer("unmetered", prompt="a", budget="two words", request_id="plain")
    give_up_at = time.monotonic() + 60
    while not (found := [line for line in request_lines(log) if "request_id=plain" in line]):
        assert time.monotonic() < give_up_at
        time.sleep(0.1)
    assert 'outcome=invalid budget="two words" reason=invalid error="' in found[0]


def test_a_server_without_metrics_serves(tmp_path):
    repository.make_model(tmp_path / "models" / "tiny")
    log = tmp_path / "log"
    with TritonServer(tmp_path / "models", extra_args=["--allow-metrics=false"], log=log) as server:
        server.wait_ready(timeout_s=300)
        caller = Caller("http", server)
        assert caller.info(prompt="a")
        caller.close()
    assert "cannot take a" not in log.read_text()


def test_an_unloaded_model_says_so_and_counts_on_when_it_is_back(tmp_path):
    repository.make_model(tmp_path / "tiny")
    arguments = ["--model-control-mode=explicit", "--load-model=tiny"]
    with TritonServer(tmp_path, extra_args=arguments) as server:
        server.wait_ready(timeout_s=300)
        caller = Caller("grpc", server)
        caller.info(prompt="a")
        scrape_until(server, lambda scrape: scrape.value("lemica_up") == 1)
        caller.client.unload_model("tiny")
        scrape_until(server, lambda scrape: scrape.value("lemica_up") == 0)
        caller.client.load_model("tiny")
        caller.info(prompt="a")
        back = scrape_until(server, lambda scrape: scrape.value("lemica_requests_total", outcome="ok") == 2)
        assert back.value("lemica_waiting_requests") == 0
        scrape_until(server, lambda scrape: scrape.value("lemica_up") == 1)
        caller.close()
