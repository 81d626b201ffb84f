"""A local Ray cluster against this process: the same graph, byte for byte."""

from functools import partial

import pytest
import ray

from lemica_planner import CalibrationError
from lemica_planner.calibrate import calibrate
from lemica_planner.ray_runner import RayRunner
from tests.planner.test_lazy import SAMPLES, STEPS, run
from tests.planner.toy_replayer import ToyReplayer

OPERATORS = ("residual", "residual-fitted")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=3, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture(params=[1, 2, 3])
def runner(request):
    runner = RayRunner(partial(ToyReplayer, STEPS), SAMPLES, workers=request.param)
    yield runner
    runner.close()


def test_the_graph_does_not_depend_on_the_workers(runner, tmp_path):
    here = run(tmp_path / "here", operators=OPERATORS)
    replayer = ToyReplayer(STEPS)
    there = run(tmp_path / "there", replayer, operators=OPERATORS, runner=runner)
    assert not replayer.sessions
    for name, graph in (("here.npz", here), ("there.npz", there)):
        graph.save(tmp_path / name)
    assert (tmp_path / "here.npz").read_bytes() == (tmp_path / "there.npz").read_bytes()


def test_an_interrupted_run_goes_on_with_other_workers(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "journal", ToyReplayer(STEPS, interrupt_after=5))
    runner = RayRunner(partial(ToyReplayer, STEPS), SAMPLES, workers=2)
    graph = run(tmp_path / "journal", runner=runner)
    assert graph.entries() == run(tmp_path / "fresh").entries()


def test_the_naive_graph_is_the_same(tmp_path):
    here = calibrate(ToyReplayer(STEPS), SAMPLES, max_span=4, journal=tmp_path / "here")
    runner = RayRunner(partial(ToyReplayer, STEPS), SAMPLES, workers=2)
    there = calibrate(ToyReplayer(STEPS), SAMPLES, max_span=4, journal=tmp_path / "there", runner=runner)
    assert (there.sample_errors == here.sample_errors).all()


def test_a_workers_error_is_the_callers(tmp_path):
    runner = RayRunner(
        partial(ToyReplayer, STEPS, interrupt_after=0, fault=OverflowError("too hot")), SAMPLES, workers=1
    )
    with pytest.raises(OverflowError, match="too hot"):
        run(tmp_path / "journal", runner=runner)


@pytest.mark.parametrize(("workers", "resources"), [(99, None), (1, {"num_gpus": 7})])
def test_more_than_the_cluster_has_is_refused(workers, resources):
    with pytest.raises(CalibrationError, match=r"the cluster has .*; give fewer workers"):
        RayRunner(partial(ToyReplayer, STEPS), SAMPLES, workers=workers, resources=resources)
