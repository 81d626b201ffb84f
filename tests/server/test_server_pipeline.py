"""A pipeline without an adapter, through the real server: unary, streaming, and refused with the reason."""

import json

import numpy as np
import pytest

from lemica_backend.triton_server import TritonServer
from lemica_planner import CachePlan, Provenance
from lemica_planner.config_writer import apply_plan
from tests.server import repository
from tests.server.callers import Caller
from tests.server.streams import GrpcStream
from tests.tiny.others import VIDEO, tiny_skyreels

pytestmark = pytest.mark.server
STEPS, COMPUTED = 5, (0, 1, 4)


def make(folder, **changed):
    settings = {"family": "pipeline", "size": VIDEO, "limits": {"max_active": 1}} | changed
    defaults = {"num_inference_steps": STEPS, "guidance_scale": 4.0}
    repository.make_model(
        folder,
        settings=settings | {"defaults": defaults},
        build=lambda weights: tiny_skyreels().save_pretrained(weights),
    )


@pytest.fixture(scope="module")
def pipeline_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    make(folder / "models" / "skyreels")
    plan = CachePlan.from_steps(Provenance(num_inference_steps=STEPS), {3: COMPUTED}, names={"fast": 3})
    apply_plan(folder / "models" / "skyreels" / "config.pbtxt", plan)
    repository.make_stream(folder / "models" / "skyreels_stream", "skyreels")
    make(folder / "models" / "wrong", options={"sharpness": 2})
    with TritonServer(folder / "models", log=folder / "server.log") as server:
        statuses = {status.name: status for status in server.wait_ready(timeout_s=300)}
        yield server, statuses


def test_a_pipeline_is_served_and_streamed(pipeline_server):
    server, _ = pipeline_server
    caller, stream = Caller("grpc", server), GrpcStream(server)
    request = {"prompt": "a cat", "seed": 7, "budget": "fast", "outputs": ("video", "info")}
    unary = caller.infer("skyreels", **request)
    info, video = json.loads(unary.as_numpy("info")[0, 0]), unary.as_numpy("video")[0]
    assert (info["computed_steps"], info["shares_forwards"], info["calibrated"]) == ([*COMPUTED], False, False)
    assert video.shape == (VIDEO["num_frames"], VIDEO["height"], VIDEO["width"], 3)
    stream.send("skyreels_stream", caller=caller, preview_every=2, **request)
    *events, (last, is_final, answer) = stream.rest()
    assert [event["computed"] for event, _, _ in events[1:]] == [step in COMPUTED for step in range(STEPS)]
    assert not any("preview" in event for event, _, _ in events)
    assert (last["event"], is_final) == ("result", True)
    np.testing.assert_array_equal(answer.as_numpy("video"), video)
    stream.close()
    caller.close()


def test_a_model_that_cannot_be_served_says_why_and_does_not_load(pipeline_server):
    _, statuses = pipeline_server
    assert not statuses["wrong"].is_ready
    assert "takes no 'sharpness'" in statuses["wrong"].reason
