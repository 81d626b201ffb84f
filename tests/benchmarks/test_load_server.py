"""The load tests themselves, each for a moment, against a real server with a tiny model and its peers."""

import asyncio
import os

import pytest

from benchmarks.load.arrivals import Mix, at_once, poisson
from benchmarks.load.client import OK, run_closed, run_open
from benchmarks.load.journal import Journal
from benchmarks.load.latency import CAPACITY, OVERLOAD, WAYS, Plan, Rounds
from benchmarks.load.peers.repository import ALONE, BATCHES, ENGINE, ONE_PLAN, make_repository
from benchmarks.load.report import draw, summary
from benchmarks.load.robustness.disconnects import vanish
from benchmarks.load.robustness.health import settled
from benchmarks.load.robustness.kills import WORKER, kill_workers
from benchmarks.load.robustness.malformed import send_malformed, unanswered
from benchmarks.load.robustness.wire import Target
from benchmarks.load.servers import serving
from tests.server import repository

pytestmark = pytest.mark.server
MIX = Mix.parse("fast,slow,full")
STREAM = "lemica_stream"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("load")
    repository.make_planned_model(folder / "tiny")
    models = folder / "models"
    make_repository(models, folder / "tiny", max_batch_size=3)
    repository.make_stream(models / STREAM, ENGINE)
    with serving(models, log=folder / "server.log") as server:
        yield server


@pytest.fixture
def target(server):
    return Target(server.http_url, server.grpc_url, ENGINE, STREAM)


@pytest.mark.parametrize("model", [ENGINE, BATCHES, ALONE])
def test_every_way_computes_what_the_budgets_say(server, model):
    budgets = {"fast": len(repository.FAST), "slow": len(repository.SLOW), "full": repository.STEPS}
    for answers in (
        run_open(server.grpc_url, model, poisson(MIX, 50.0, 6, seed=0), patience_s=120),
        run_closed(server.grpc_url, model, at_once(MIX, 6, seed=0), users=3, patience_s=120),
    ):
        assert [answer.outcome for answer in answers] == [OK] * 6
        assert all(answer.computed == budgets[answer.budget] for answer in answers)
        assert all(answer.done_s >= answer.sent_s >= answer.at_s for answer in answers)


def test_a_batch_of_one_plan_never_computes_less_than_asked_for(server):
    budgets = {"fast": len(repository.FAST), "slow": len(repository.SLOW), "full": repository.STEPS}
    answers = run_closed(server.grpc_url, ONE_PLAN, at_once(MIX, 9, seed=0), users=9, patience_s=120)
    assert [answer.outcome for answer in answers] == [OK] * 9
    assert all(answer.computed >= budgets[answer.budget] for answer in answers)
    assert any(answer.computed > budgets[answer.budget] for answer in answers)


def test_peers_refuse_what_they_do_not_know(server):
    (answer,) = run_open(server.grpc_url, BATCHES, at_once(Mix.parse("ultra"), 1, seed=0), patience_s=60)
    assert answer.outcome == "failed"
    assert "ultra" in answer.error


def test_rounds_measure_every_way_and_go_on_from_their_journal(server, tmp_path):
    plan = Plan("tiny", None, "fast,slow,full", 4, (0.7,), 2, 1.5, "fast", "slow", 5.0, 3, 0)
    measuring = Rounds(server.grpc_url, plan, Journal(tmp_path / "rows", plan.settings()))
    rows = list(measuring.measure(0))
    assert len(rows) == measuring.runs_a_round
    loads = {way.name: {row["load"] for row in rows if row["way"] == way.name} for way in WAYS}
    assert loads["whole batches"] == {CAPACITY, "70 %"}
    assert loads["lemica"] == {CAPACITY, "70 %", "capacity at slow", OVERLOAD}
    assert all(row["turn_s"] > 0 and row["per_turn"] == pytest.approx(row["per_s"] * row["turn_s"]) for row in rows)
    again = Rounds("nowhere:1", plan, Journal(tmp_path / "rows", plan.settings()))
    assert sorted(map(str, again.measure(0))) == sorted(map(str, rows))
    found = summary(plan, rows)
    measures = {each["measure"] for each in found["ratios"] if each["load"] == "70 %"}
    assert "p95_turns, pooled" in measures
    assert [(goal["load"], goal["against"]) for goal in found["goals"]] == [
        *[("70 %", "whole batches, one plan"), ("70 %", "whole batches")] * 2,
        (OVERLOAD, "lemica, always slow"),
        (OVERLOAD, "whole batches, always slow"),
    ]
    draw(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_malformed_requests_are_all_answered(server, target):
    outcomes = asyncio.run(send_malformed(target, 80))
    assert sum(sum(each.values()) for each in outcomes.counts.values()) == 80
    assert unanswered(outcomes) == 0
    found = asyncio.run(settled(target, server.metrics_url))
    assert found == {"serves_afterwards": True, "left_over": {}}


def test_vanished_clients_leave_nothing_behind(server, target):
    outcomes = asyncio.run(vanish(target, 12))
    assert sum(outcomes.total(outcome) for outcome in ("cut", "closed", "answered before")) == 12
    assert outcomes.total("cut") > 0
    assert asyncio.run(settled(target, server.metrics_url))["left_over"] == {}


def test_killed_worker_loses_nobody_an_answer(server, target):
    (before,) = server.processes(WORKER)
    found = asyncio.run(kill_workers(server, target, 1))
    wrong = ("unanswered", "answered_twice", "failed")
    assert [found["outcomes"][name] for name in wrong] == [0, 0, 0]
    assert found["outcomes"]["grpc OK"] > 0
    assert [process.pid for process in server.processes(WORKER)] != [before.pid]


def test_processes_are_those_of_this_server(server):
    pids = {process.pid for process in server.processes()}
    assert os.getpid() not in pids
    assert server.is_alive
    assert server.resident_bytes() > 10 * 2**20
