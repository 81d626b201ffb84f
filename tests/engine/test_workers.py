"""Workers in processes of their own: the same results, and what happens when they die, hang or cannot load."""

import os
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lemica_backend import supervisor
from lemica_backend.config import ModelConfig
from lemica_backend.engine import Engine, Workers, load_engine
from lemica_backend.errors import DeadlineExceededError, EngineUnavailableError, ModelLoadError
from lemica_backend.types import GenerationRequest, GenerationResult
from tests.engine.faulty import kill, slow_source

STEPS = 6


def config_of(**sections):
    base = {"threads": 1, "defaults": {"num_inference_steps": STEPS, "guidance_scale": 4.0}}
    scheduling = {"warm_up_s": 0, **sections.pop("scheduling", {})}
    return ModelConfig.model_validate(base | {"scheduling": scheduling} | sections)


@pytest.fixture(autouse=True)
def one_thread():
    """Here as in the workers: sums of several threads differ in the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def request(seed=1, **options):
    return GenerationRequest("a cat", **{"seed": seed, **options})


class Served:
    """An engine on slow workers in processes, and every outcome with the time at which it came."""

    def __init__(self, weights, plan, folder, lanes=1, seconds=0.02, **sections):
        self.folder, config = folder, config_of(**sections)
        self.sources = [slow_source(folder, weights.parent, config, plan, seconds) for _ in range(lanes)]
        self.engine = Engine(Workers(tuple(self.sources)), config, plan)
        self.outcomes, self.at = {}, {}
        self._changed = threading.Condition()
        self.stepped = threading.Event()

    def send(self, name, **options):
        self.engine.submit(
            request(**options), on_done=partial(self._take, name), on_step=lambda progress: self.stepped.set()
        )

    def _take(self, name, outcome):
        with self._changed:
            self.outcomes.setdefault(name, []).append(outcome)
            self.at[name] = time.perf_counter()
            self._changed.notify_all()

    def wait(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.outcomes) >= count, 240)
        assert all(len(outcomes) == 1 for outcomes in self.outcomes.values())
        return {name: outcomes[0] for name, outcomes in self.outcomes.items()}

    def wait_step(self):
        self.stepped.clear()
        assert self.stepped.wait(240)

    def loads(self):
        return (self.folder / "loads").read_text().split()


@pytest.fixture
def serve(weights, plan, tmp_path):
    served = []

    def make(**options):
        served.append(Served(weights, plan, tmp_path, **options))
        return served[-1]

    yield make
    for each in served:
        (tmp_path / "hang").unlink(missing_ok=True)
        (tmp_path / "die").unlink(missing_ok=True)
        each.engine.close()
        assert all(outcomes and len(outcomes) == 1 for outcomes in each.outcomes.values())


def test_a_process_gives_what_the_model_in_this_process_gives_bit_by_bit(weights, model, plan):
    config = config_of(scheduling={"warm_up_s": 0.1})
    there, here = load_engine(weights.parent, config, plan.to_json()), Engine(model, config, plan)
    for budget in ("full", "slow", "fast", "fast..full"):
        for guidance_scale in (4.0, 1.0) if budget == "full" else (4.0,):
            asked = request(budget=budget, guidance_scale=guidance_scale)
            results = [engine.generate(asked) for engine in (there, here)]
            assert results[0].info["computed_steps"] == results[1].info["computed_steps"]
            assert np.array_equal(results[0].latents, results[1].latents)
            assert np.array_equal(results[0].frames, results[1].frames)
            assert results[0].frames.flags.writeable
    with pytest.raises(Exception, match="at most 120") as caught:
        there.generate(GenerationRequest("word " * 100))
    assert type(caught.value).__name__ == "InvalidRequestError"
    there.close()
    here.close()


def test_killed_again_and_again_under_load_everyone_is_answered_once(serve):
    served = serve()
    for round_ in range(3):
        for number in range(6):
            served.send((round_, number), seed=number)
        served.wait_step()
        waiting = served.engine.load().waiting
        killed = time.perf_counter()
        kill(served.sources[0])
        outcomes = served.wait(6 * (round_ + 1))
        lost = [name for name in outcomes if name[0] == round_ and not isinstance(outcomes[name], GenerationResult)]
        assert 1 <= len(lost) <= 6 - waiting + 1
        assert all(served.at[name] - killed < 1.0 for name in lost)
        assert all("by signal 9" in str(outcomes[name]) for name in lost)
        assert {type(outcomes[name]) for name in lost} == {EngineUnavailableError}
    assert isinstance(served.engine.generate(request()), GenerationResult)  # a client's second try
    assert served.engine.workers()[0].restarts == 3


def wait_restarts(served, count):
    deadline = time.monotonic() + 240
    while not (served.engine.workers()[0].restarts == count and served.engine.workers()[0].is_serving):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_idle_worker_that_dies_is_replaced_before_anyone_asks(serve):
    served = serve()
    kill(served.sources[0])
    wait_restarts(served, 1)
    assert isinstance(served.engine.generate(request()), GenerationResult)


def test_promises_and_predictions_know_that_a_worker_is_loading(serve):
    served = serve()
    served.engine.generate(request())  # what a step costs is known from here on
    (supervisor,) = served.engine._supervisors
    supervisor.load_s = 1000.0
    kill(served.sources[0])
    deadline = time.monotonic() + 60
    while served.engine.workers()[0].is_serving:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    with pytest.raises(EngineUnavailableError, match="can meet is"):
        served.engine.submit(request(deadline_ms=500_000), on_done=print)
    assert served.engine.generate(request()).info["eta_ms"] > 500_000
    assert supervisor.load_s < 1000
    assert served.engine.generate(request()).info["eta_ms"] < 500_000


def test_a_spare_process_takes_the_place_of_a_lost_worker(serve):
    served = serve(spare_worker=True)
    source = served.sources[0]
    spare = source.spare_pid
    kill(source)
    wait_restarts(served, 1)
    assert source.pid == spare
    assert isinstance(served.engine.generate(request()), GenerationResult)
    assert served.loads()[1:] == [str(source.pid)]  # the next spare loads nothing
    spare = source.spare_pid
    served.engine.close()
    assert not Path(f"/proc/{spare}").exists()


def test_lost_requests_begin_anew_once_where_that_is_allowed(serve, model, plan):
    served = serve(scheduling={"retry_lost": True})
    served.send("first", budget="fast..full")
    served.wait_step()
    kill(served.sources[0])
    served.wait_step()  # on the next worker
    result = served.wait(1)["first"]
    here = Engine(model, config_of(), plan)
    assert np.array_equal(result.latents, here.generate(request(budget="full")).latents)
    here.close()
    served.send("second", budget="full", num_inference_steps=50)
    served.wait_step()
    kill(served.sources[0])
    served.wait_step()
    kill(served.sources[0])
    assert isinstance(served.wait(2)["second"], EngineUnavailableError)


def test_a_worker_that_hangs_is_ended_and_replaced(serve):
    served = serve(limits={"worker_timeout_s": 1.0})
    served.send("first")
    served.wait_step()
    (served.folder / "hang").touch()
    assert "did not answer within 1 s" in str(served.wait(1)["first"])
    (served.folder / "hang").unlink()
    served.send("second")
    assert isinstance(served.wait(2)["second"], GenerationResult)


def test_those_who_wait_keep_their_place_and_their_deadlines_while_nothing_runs(serve):
    served = serve(limits={"max_active": 1}, scheduling={"policy": "fcfs"})
    served.send("running")
    served.wait_step()
    (served.folder / "hang").touch()
    served.send("overdue", timeout_ms=300)
    served.send("patient")
    outcomes = served.wait(1)
    assert isinstance(outcomes["overdue"], DeadlineExceededError)
    (served.folder / "hang").unlink()
    kill(served.sources[0])
    outcomes = served.wait(3)
    assert isinstance(outcomes["patient"], GenerationResult)


def test_a_worker_that_cannot_load_again_is_said_and_tried_more_slowly(serve, monkeypatch):
    monkeypatch.setattr(supervisor, "DELAYS_S", (0.0, 0.01, 0.01))
    monkeypatch.setattr(supervisor, "SLOW_S", 1.0)
    served = serve(limits={"max_active": 1}, scheduling={"policy": "fcfs"})
    served.send("running")
    served.wait_step()
    served.send("waiting")
    (served.folder / "die").touch()
    kill(served.sources[0])
    outcomes = served.wait(2)
    assert "cannot be loaded again: the worker that computed the request ended by signal 9" in str(outcomes["waiting"])
    assert len(served.loads()) >= 1 + supervisor.TRIES
    with pytest.raises(EngineUnavailableError, match="try again later"):
        served.engine.submit(request(), on_done=print)
    assert served.engine.workers()[0].down
    (served.folder / "die").unlink()
    deadline = time.monotonic() + 240
    while not served.engine.workers()[0].is_serving:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert isinstance(served.engine.generate(request()), GenerationResult)


def test_a_worker_that_dies_in_the_first_load_is_a_broken_model(serve, tmp_path):
    (tmp_path / "die").touch()
    with pytest.raises(ModelLoadError, match="by signal 9"):
        serve()


def test_two_devices_are_fed_from_one_queue(serve):
    served = serve(lanes=2, seconds=0.05)
    for number in range(6):
        served.send(number, seed=number)
    served.wait(6)
    assert all(isinstance(outcome, GenerationResult) for outcome in served.wait(6).values())
    ticks = [each.lane.ticks for each in served.engine._supervisors]
    assert min(ticks) >= STEPS
    assert sum(ticks) <= 6 * STEPS


def test_one_of_two_devices_takes_over_from_the_other(serve):
    served = serve(lanes=2, seconds=0.05, scheduling={"retry_lost": True})
    for number in range(6):
        served.send(number, seed=number)
    served.wait_step()
    (served.folder / "die").touch()  # it does not come back
    kill(served.sources[1])
    assert all(isinstance(outcome, GenerationResult) for outcome in served.wait(6).values())
    assert served.engine.load().waiting == 0


def test_closing_ends_what_runs_and_leaves_no_process(serve):
    served = serve(lanes=2)
    for number in range(4):
        served.send(number, seed=number)
    served.wait_step()
    served.engine.close()
    outcomes = served.wait(4)
    assert any(isinstance(outcome, EngineUnavailableError) for outcome in outcomes.values())
    for pid in {int(pid) for pid in served.loads()}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
