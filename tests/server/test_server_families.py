"""Every family through one real server, in folders that `lemica init` writes: unary, streaming, and reused steps."""

import base64
import json

import numpy as np
import pytest

from lemica_backend.image_file import open_image, read_image
from lemica_backend.model_folder import make_folder
from lemica_backend.triton_server import TritonServer
from lemica_client import Client
from lemica_planner import CachePlan, Provenance
from lemica_planner.config_writer import apply_plan
from tests.server import repository
from tests.server.callers import INVALID, Caller
from tests.server.streams import GrpcStream, Sse
from tests.tiny.families import FAMILIES
from tests.tiny.family import noise_png

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
        server.wait_ready(timeout_s=500)
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
    tiny = ONE_OF_EACH[family]
    image = {name: image.data for name, image in tiny.shown().items()}
    request = {"prompt": "a cat", "seed": 7, "budget": str(len(COMPUTED)), "outputs": ("video", "info"), **image}
    unary = families_caller.infer(family, **request)
    video, info = unary.as_numpy("video")[0], json.loads(unary.as_numpy("info")[0, 0])
    assert info["computed_steps"] == list(COMPUTED)
    assert video.std() > 1
    if tiny.size:
        assert video.shape == (*(tiny.size[name] for name in ("num_frames", "height", "width")), 3)
    families_stream.send(f"{family}_stream", caller=families_caller, **request)
    *events, (last, is_final, answer) = families_stream.rest()
    assert [event["computed"] for event, _, _ in events[1:]] == [step in COMPUTED for step in range(STEPS)]
    assert (last["event"], is_final) == ("result", True)
    assert np.array_equal(answer.as_numpy("video"), video)


def infer_client(server, model, **options):
    with Client(f"grpc://{server.grpc_url}", model=model, timeout_s=120) as client:
        return client.generate("a cat", seed=7, budget="full", **options)


def test_images_reach_the_model_over_json_and_from_the_client(families_server, tmp_path):
    model, picture = "wan_i2v", noise_png(32, 48, 3)
    (tmp_path / "a.png").write_bytes(picture)
    pixels = np.asarray(open_image(read_image(picture, max_pixels=10**6)))
    videos = [infer_client(families_server, model, image=image) for image in (tmp_path / "a.png", picture, pixels)]
    assert np.array_equal(videos[0].frames, videos[1].frames)
    assert np.array_equal(videos[0].frames, videos[2].frames)
    other = infer_client(families_server, model, image=noise_png(32, 48, 4))
    assert not np.array_equal(videos[0].frames, other.frames)
    asked = {"prompt": "a cat", "seed": 7, "budget": "full", "file_format": "gif", "file_encoding": "base64"}
    sse = Sse(families_server, model, "generate", **asked, image=base64.b64encode(picture).decode())
    assert base64.b64decode(json.loads(sse.response.read())["video_file"]).startswith(b"GIF89a")
    sse.close()
    with Client(f"http://{families_server.http_url}", model=model, timeout_s=120) as client:
        *_, streamed = client.stream("a cat", seed=7, file_format="gif", want_frames=False, image=picture)
    assert streamed.file_bytes.startswith(b"GIF89a")


@pytest.mark.parametrize(
    ("model", "values", "says"),
    [
        ("wan_i2v", {}, "image is missing"),
        ("wan", {"image": noise_png(32, 48)}, "leave image out"),
        ("wan_i2v", {"image": b"no image"}, "no file that can be read of PNG, JPEG, WEBP"),
        ("wan_i2v", {"image": noise_png(32, 48)[:-200]}, "image is broken"),
        ("wan_i2v", {"image": noise_png(48, 48)}, "image is 48 x 48, and this model's videos are 48 x 32"),
    ],
)
def test_images_that_cannot_be_are_invalid_arguments(families_caller, model, values, says):
    error = families_caller.refusal(model=model, prompt="a cat", **values)
    assert error.status() == INVALID["grpc"]
    assert says in error.message()
