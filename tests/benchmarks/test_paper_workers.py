"""Ray workers that several calibrations share."""

from functools import partial

import pytest
import ray

from benchmarks.paper.kept_workers import KeptWorkers
from lemica_planner.lazy import calibrate_lazily
from tests.planner.test_lazy import BUDGETS, SAMPLES, SPAN, STEPS
from tests.planner.toy_replayer import ToyReplayer


@pytest.fixture
def workers():
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    workers = KeptWorkers(partial(ToyReplayer, STEPS), SAMPLES, workers=2)
    yield workers
    workers.end()
    ray.shutdown()


def graph_of(samples, journal, runner=None):
    replayer = ToyReplayer(STEPS)
    graph = calibrate_lazily(replayer, samples, max_span=SPAN, budgets=BUDGETS, journal=journal, runner=runner)
    assert bool(replayer.sessions) == (runner is None)
    return graph


def test_calibrations_share_the_workers_and_their_trajectories(workers, tmp_path):
    journal = tmp_path / "there"
    for samples in (SAMPLES[:1], SAMPLES):
        workers.deal(samples)
        there = graph_of(samples, journal, workers).entries()
        here = graph_of(samples, tmp_path / f"here-{len(samples)}").entries()
        assert {budget: entry.steps for budget, entry in there.items()} == {at: each.steps for at, each in here.items()}
    assert workers.unopened(SAMPLES) == 0
