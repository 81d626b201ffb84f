"""One engine in a process of its own: shared by models of a server, replaced when it dies, gone with the server."""

import json
import os
import queue
import signal

import psutil
import pytest
from tritonclient.utils import InferenceServerException

from lemica_backend.triton_server import TritonServer
from lemica_planner import CachePlan, Provenance
from lemica_planner.config_writer import read_plan
from tests.server import repository
from tests.server.callers import UNAVAILABLE, Caller
from tests.server.engines import attached, engine_pids, wait_until
from tests.server.streams import GrpcStream

pytestmark = pytest.mark.server
EXPLICIT = ["--model-control-mode=explicit", "--load-model=tiny", "--load-model=tiny_stream"]
LONG = {"prompt": "a", "num_inference_steps": 1000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    repository.make_planned_model(folder / "tiny")
    repository.make_stream(folder / "tiny_stream", "tiny")
    return folder


@pytest.fixture(scope="module")
def own_log(tmp_path_factory):
    return tmp_path_factory.mktemp("log") / "server.log"


@pytest.fixture(scope="module")
def own_server(folder, own_log):
    with TritonServer(folder, log=own_log, extra_args=EXPLICIT) as server:
        server.wait_ready(timeout_s=300)
        yield server
    assert engine_pids(server) == []


@pytest.fixture
def own(own_server):
    caller = Caller("grpc", own_server)
    yield caller
    caller.close()


def config_of(own):
    return json.loads(json.dumps(own.client.get_model_config("tiny", as_json=True)["config"]))


def load_with_plan(own, plan_json):
    config = config_of(own)
    config.setdefault("parameters", {})["cache_plan"] = {"string_value": plan_json}
    own.client.load_model("tiny", config=json.dumps(config))


def plan_json(steps, **provenance):
    fields = {"num_inference_steps": repository.STEPS, "guidance_scale": 4.0} | provenance
    return CachePlan.from_steps(Provenance(**fields), {len(steps): steps}, names={"fast": len(steps)}).to_json()


def stream_info(own_server, own, **values):
    stream = GrpcStream(own_server)
    stream.send(caller=own, **values)
    answers = stream.rest()
    stream.close()
    return answers[-1][0]


def test_both_models_share_one_process_and_one_engine(own_server, own, folder):
    (pid,) = engine_pids(own_server)
    assert own.info(prompt="a", budget="fast")["computed_steps"] == list(repository.FAST)
    assert stream_info(own_server, own, prompt="a", budget="fast")["computed_steps"] == list(repository.FAST)
    with attached(own_server, folder / "tiny" / "1") as front:
        assert front.engine_pid == pid
        calls = [own.client.async_infer("tiny", own.tensors(**LONG), lambda result, error: None) for _ in range(2)]
        stream = GrpcStream(own_server)
        stream.send(caller=own, **LONG)
        assert wait_until(lambda: front.load().started + front.load().waiting == 3)
        stream.close(cancel=True)
        for call in calls:
            call.cancel()
        assert wait_until(lambda: front.load().started + front.load().waiting == 0)


def test_killed_engine_is_answered_for_at_once_and_replaced(own_server, own, folder):
    assert wait_until(lambda: is_served(own))
    (pid,) = engine_pids(own_server)
    answers, stream = queue.Queue(), GrpcStream(own_server)
    stream.send(caller=own, **LONG)
    assert stream.next()[0]["event"] == "accepted"
    assert stream.next()[0]["event"] == "progress"
    with attached(own_server, folder / "tiny" / "1") as front:
        own.client.async_infer("tiny", own.tensors(**LONG), lambda result, error: answers.put(error or result))
        assert wait_until(lambda: front.load().started + front.load().waiting == 2)
        os.kill(pid, signal.SIGKILL)
    assert answers.get(timeout=10).status() == UNAVAILABLE["grpc"]
    assert "the engine's process ended" in stream.rest()[-1].message()
    assert wait_until(lambda: is_served(own))
    assert engine_pids(own_server) != [pid]
    assert len(engine_pids(own_server)) == 1
    assert stream_info(own_server, own, prompt="a", budget="fast")["computed_steps"] == list(repository.FAST)
    stream.close()


def is_served(own):
    try:
        return bool(own.info(prompt="a", num_inference_steps=1))
    except InferenceServerException as error:
        if error.status() != UNAVAILABLE["grpc"]:
            raise
        return False


def test_new_plan_takes_effect_without_a_restart_and_running_requests_keep_theirs(own_server, own):
    assert wait_until(lambda: is_served(own))
    (pid,), started = engine_pids(own_server), {}
    stream = GrpcStream(own_server)
    for number in range(30):  # a queue that lasts while the model is loaded
        stream.send(prompt="a", budget="fast", request_id=str(number), caller=own)
        started[str(number)] = None
    load_with_plan(own, plan_json((0, 4, 5)))
    assert own.info(prompt="a", budget="fast")["computed_steps"] == [0, 4, 5]
    assert stream_info(own_server, own, prompt="a", budget="fast")["computed_steps"] == [0, 4, 5]
    while None in started.values():
        event, is_final, answer = stream.next()
        if is_final:
            started[answer.get_response().id] = event["computed_steps"]
    assert list(started.values()) == [list(repository.FAST)] * 30
    assert engine_pids(own_server) == [pid]
    stream.close()


REFUSED = {
    "weights": (plan_json((0, 2, 5), weights_hash="0" * 64), "weights_hash"),
    "scheduler": (plan_json((0, 2, 5), scheduler="Other"), "scheduler: plan 'Other'"),
    "size": (plan_json((0, 2, 5), height=480), "height: plan 480"),
    "no plan": ("{", "not JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_foreign_plan_is_refused_naming_what_differs_and_the_old_one_serves_on(own_server, own, case):
    assert wait_until(lambda: is_served(own))
    (pid,), plan = engine_pids(own_server), own.info(prompt="a", budget="fast")["plan_id"]
    text, said = REFUSED[case]
    with pytest.raises(InferenceServerException, match=r"failed to load|load failed") as refused:
        load_with_plan(own, text)
    assert said in refused.value.message()
    assert own.info(prompt="a", budget="fast")["plan_id"] == plan
    assert engine_pids(own_server) == [pid]


def test_other_settings_are_another_engine(own_server, own, folder):
    (pid,) = engine_pids(own_server)
    path = folder / "tiny" / "1" / "model.json"
    before = path.read_text()
    settings = json.loads(before) | {"fps": 9, "outside_plan": "full"}
    try:
        path.write_text(json.dumps(settings))
        own.client.load_model("tiny")
        assert own.info(prompt="a")["fps"] == 9
        info = own.info(prompt="a", budget="fast", guidance_scale=2.0)
        assert (info["budget"], info["outside_plan"]) == ("full", ["guidance_scale"])
        assert info["computed_steps"] == list(range(repository.STEPS))
        info = own.info(prompt="a", budget="fast")
        assert (info["budget"], info["outside_plan"]) == ("fast", [])
        assert pid in engine_pids(own_server)  # of the stream, until it is loaded anew, too
        assert len(engine_pids(own_server)) == 2
        own.client.load_model("tiny_stream")
    finally:
        path.write_text(before)


def test_engine_outlives_a_short_absence_and_no_long_one(own_server, own):
    for name in ("tiny", "tiny_stream"):
        own.client.unload_model(name)
    assert wait_until(lambda: engine_pids(own_server) == [])
    for name in ("tiny", "tiny_stream"):
        own.client.load_model(name)
    assert own.info(prompt="a")["budget"] == "full"
    assert len(engine_pids(own_server)) == 1


def test_watcher_of_the_oldest_front_hears_of_everything(own_server, own, folder):
    """Of those that own their plan: a streaming model's front hears nothing."""
    heard, plan_json = [], read_plan(folder / "tiny" / "config.pbtxt").to_json()

    class Ear:
        def __getattr__(self, name):
            return lambda *arguments: heard.append((name, arguments))

    with attached(own_server, folder / "tiny" / "1", watcher=Ear(), plan_json=plan_json):
        own.info(prompt="a")
        assert heard == []  # an older front is there
        for name in ("tiny", "tiny_stream"):
            own.client.unload_model(name)
        own.client.load_model("tiny")
        own.info(prompt="a")
        assert wait_until(lambda: "answered" in dict(heard))
        assert "ticked" in dict(heard)
    own.client.load_model("tiny_stream")


def test_two_servers_do_not_share(own_server, folder, tmp_path):
    with TritonServer(folder, log=tmp_path / "log", extra_args=EXPLICIT[:2]) as other:
        other.wait_ready(timeout_s=300)
        (mine,), (its,) = engine_pids(own_server), engine_pids(other)
        assert mine != its
        os.kill(other.pid, signal.SIGKILL)
        assert wait_until(lambda: not psutil.pid_exists(its) or psutil.Process(its).status() == "zombie")
        assert engine_pids(own_server) == [mine]
