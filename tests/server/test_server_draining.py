"""At the end of a model or a server, what is accepted is finished or refused, and nothing hangs."""

import queue
import time

import psutil
import pytest

from lemica_backend.triton_server import TritonServer
from tests.server import repository
from tests.server.callers import UNAVAILABLE, Caller
from tests.server.engines import engine_pids, wait_until
from tests.server.streams import GrpcStream

pytestmark = pytest.mark.server
DRAIN_S = 2  # a thousand steps take longer on any machine


@pytest.fixture
def draining(tmp_path):
    repository.make_model(tmp_path / "models" / "tiny", settings={"limits": {"drain_s": DRAIN_S}})
    repository.make_stream(tmp_path / "models" / "tiny_stream", "tiny")
    arguments = ["--model-control-mode=explicit", "--load-model=*"]
    with TritonServer(tmp_path / "models", log=tmp_path / "log", exit_timeout_s=40, extra_args=arguments) as server:
        server.wait_ready(timeout_s=300)
        yield server
    assert wait_until(lambda: engine_pids(server) == [])  # the engine ends by itself, at the latest after its server


def start(caller, **values):
    answers = queue.Queue()
    caller.client.async_infer(
        "tiny", caller.tensors(prompt="a", **values), lambda result, error: answers.put(error or result)
    )
    return answers


def test_sigterm_finishes_what_is_near_its_end_and_refuses_the_rest(draining):
    caller, stream = Caller("grpc", draining), GrpcStream(draining)
    caller.info(prompt="a")
    stream.send(prompt="a", num_inference_steps=1000, caller=caller)
    assert stream.next()[0]["event"] == "accepted"
    assert stream.next()[0]["event"] == "progress"
    short, long = start(caller, num_inference_steps=20), start(caller, num_inference_steps=1000)
    time.sleep(0.3)
    draining.send_signal(15)
    error = long.get(timeout=30)
    assert error.status() == UNAVAILABLE["grpc"]
    assert "the server is shutting down" in error.message()
    assert not isinstance(short.get(timeout=30), Exception)
    assert "the server is shutting down" in stream.rest()[-1].message()
    stream.close()  # an open stream would hold up the end
    caller.close()
    assert wait_until(lambda: not psutil.pid_exists(draining.pid) or psutil.Process(draining.pid).status() == "zombie")
    assert draining.wait() == 0


def test_sigterm_just_after_the_first_request_refuses_it_all_the_same(draining):
    caller, stream = Caller("grpc", draining), GrpcStream(draining)
    time.sleep(1)  # in which the engine finds out where an idle server listens
    stream.send(prompt="a", num_inference_steps=1000, caller=caller)
    assert stream.next()[0]["event"] == "accepted"
    draining.send_signal(15)
    assert "the server is shutting down" in stream.rest()[-1].message()
    stream.close()
    caller.close()


def test_unload_lets_running_requests_finish(draining):
    caller, stream = Caller("grpc", draining), GrpcStream(draining)
    stream.send(prompt="a", num_inference_steps=40, caller=caller)
    assert stream.next()[0]["event"] == "accepted"
    answers = [start(caller, num_inference_steps=20) for _ in range(2)]
    for name in ("tiny", "tiny_stream"):
        caller.client.unload_model(name)
    assert all(not isinstance(each.get(timeout=60), Exception) for each in answers)
    assert stream.rest()[-1][0]["event"] == "result"
    stream.close()  # an open stream keeps its model loaded
    assert wait_until(lambda: engine_pids(draining) == [])
    caller.close()
