"""Every family through one real server, in folders that `lemica init` writes: unary, streaming, and reused steps."""

import json

import numpy as np
import pytest

from lemica_backend.model_folder import make_folder
from lemica_backend.triton_server import TritonServer
from lemica_planner import CachePlan, Provenance
from lemica_planner.config_writer import apply_plan
from tests.server import repository
from tests.server.callers import Caller
from tests.server.streams import GrpcStream
from tests.tiny.families import FAMILIES

pytestmark = pytest.mark.server
ONE_OF_EACH = {tiny.family: tiny for tiny in reversed(FAMILIES.values())}
STEPS, COMPUTED = 4, (0, 2, 3)
SETTINGS = {
    "threads": 1,
    "defaults": {"num_inference_steps": STEPS, "guidance_scale": 4.0},
    "limits": {"drain_s": 1},
    "scheduling": {"warm_up_s": 0},
}


def make_family(tiny, repository_dir, weights):
    """Write the folder as an operator would, but for the size and the plan, which no calibration made."""
    tiny.build().save_pretrained(weights)
    path = make_folder(str(weights), repository_dir, tiny.family).path
    settings = json.loads((path / "1" / "model.json").read_text())
    options = {"size": dict(tiny.size), "options": dict(tiny.options)}
    (path / "1" / "model.json").write_text(json.dumps(settings | SETTINGS | options))
    provenance = Provenance(num_inference_steps=STEPS, guidance_scale=4.0)
    apply_plan(path / "config.pbtxt", CachePlan.from_steps(provenance, {len(COMPUTED): COMPUTED}))
    repository.make_stream(repository_dir / f"{tiny.family}_stream", tiny.family)


@pytest.fixture(scope="module")
def families_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    for family, tiny in ONE_OF_EACH.items():
        make_family(tiny, folder / "models", folder / "weights" / family)
    with TritonServer(folder / "models", log=folder / "server.log") as server:
        server.wait_ready(timeout_s=300)
        yield server


@pytest.fixture(scope="module")
def families_caller(families_server):
    caller = Caller("grpc", families_server)
    yield caller
    caller.close()


@pytest.fixture
def families_stream(families_server):
    stream = GrpcStream(families_server)
    yield stream
    stream.close(cancel=True)


@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_a_family_streams_the_video_that_it_answers(family, families_caller, families_stream):
    request = {"prompt": "a cat", "seed": 7, "budget": str(len(COMPUTED)), "outputs": ("video", "info")}
    unary = families_caller.infer(family, **request)
    video, info = unary.as_numpy("video")[0], json.loads(unary.as_numpy("info")[0, 0])
    tiny = ONE_OF_EACH[family]
    assert info["computed_steps"] == list(COMPUTED)
    assert video.std() > 1
    if tiny.size:
        assert video.shape == (*(tiny.size[name] for name in ("num_frames", "height", "width")), 3)
    families_stream.send(f"{family}_stream", caller=families_caller, **request)
    *events, (last, is_final, answer) = families_stream.rest()
    assert [event["computed"] for event, _, _ in events[1:]] == [step in COMPUTED for step in range(STEPS)]
    assert (last["event"], is_final) == ("result", True)
    assert np.array_equal(answer.as_numpy("video"), video)
