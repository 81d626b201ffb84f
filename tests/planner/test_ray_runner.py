"""A local Ray cluster against this process: the same graph, byte for byte."""

import sys
from functools import partial
from subprocess import CalledProcessError
from subprocess import run as run_command

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
    assert_same_file(here, there, tmp_path)


def test_an_interrupted_run_goes_on_with_other_workers(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "journal", ToyReplayer(STEPS, interrupt_after=5))
    runner = RayRunner(partial(ToyReplayer, STEPS), SAMPLES, workers=2)
    graph = run(tmp_path / "journal", runner=runner)
    assert graph.entries() == run(tmp_path / "fresh").entries()


def test_the_naive_graph_does_not_depend_on_the_workers(runner, tmp_path):
    here = calibrate(ToyReplayer(STEPS), SAMPLES, max_span=4, journal=tmp_path / "here")
    replayer = ToyReplayer(STEPS)
    there = calibrate(replayer, SAMPLES, max_span=4, journal=tmp_path / "there", runner=runner)
    assert not replayer.sessions
    assert_same_file(here, there, tmp_path)


def test_the_command_runs_on_the_cluster_whose_address_it_is_given(tmp_path):
    address = ray.get_runtime_context().gcs_address
    here, there = calibrate_by_command(tmp_path / "here"), calibrate_by_command(tmp_path / "there", "--ray", address)
    assert (here / "graph.npz").read_bytes() == (there / "graph.npz").read_bytes()
    assert ran_in(here) == {"no cluster"}
    assert ran_in(there) == {address}


def test_an_address_without_a_cluster_is_one_line(tmp_path):
    with pytest.raises(CalledProcessError) as refused:
        calibrate_by_command(tmp_path / "nowhere", "--ray", "127.0.0.1:9")
    (line,) = [line for line in refused.value.stderr.splitlines() if line.startswith("error: ")]
    assert "no Ray cluster answers at 127.0.0.1:9" in line
    assert refused.value.returncode == 2


def calibrate_by_command(folder, *options):
    """Run the real command, in a process of its own, on a toy that writes down where its trajectories run."""
    folder.mkdir()
    (folder / "prompts.txt").write_text("a red cube\na blue cube\n")
    toy = ("--replayer", "tests.planner.toy_replayer:open_telling", "--budgets", "5")
    files = ("--prompts", folder / "prompts.txt", "-o", folder / "graph.npz")
    command = [sys.executable, "-m", "lemica_planner", "calibrate", folder, *toy, *files, *options]
    run_command([str(part) for part in command], check=True, capture_output=True, text=True)
    return folder


def ran_in(folder):
    return {path.read_text() for path in folder.glob("ran-*")}


def assert_same_file(here, there, folder):
    for name, graph in (("here.npz", here), ("there.npz", there)):
        graph.save(folder / name)
    assert (folder / "here.npz").read_bytes() == (folder / "there.npz").read_bytes()


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
