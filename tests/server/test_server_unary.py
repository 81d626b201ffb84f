"""Requests that are served, over both protocols."""

import http.client
import json
import queue
from io import BytesIO

import av
import numpy as np
import pytest
from PIL import Image

from tests.server.repository import FAST, SLOW, STEPS
from tests.tiny_latte import FRAMES, SIZE

pytestmark = pytest.mark.server
SHAPE = (FRAMES, SIZE, SIZE, 3)


def test_every_output(caller):
    answer = caller.infer(prompt="a red circle", seed=7, outputs=("video", "video_file", "info"))
    video = answer.as_numpy("video")
    assert (video.shape, video.dtype) == ((1, *SHAPE), np.uint8)
    assert video.std() > 10
    info = json.loads(answer.as_numpy("info")[0, 0])
    assert (info["seed"], info["budget"], info["computed_steps"]) == (7, "full", list(range(STEPS)))
    assert info["timings_ms"]["total"] >= info["timings_ms"]["denoise"] > 0


def test_same_request_same_video_whatever_the_protocol(caller, grpc):
    request = {"prompt": "a red circle", "seed": 7, "outputs": ("video",)}
    assert np.array_equal(caller.infer(**request).as_numpy("video"), grpc.infer(**request).as_numpy("video"))


@pytest.mark.parametrize("outputs", [("info",), ("video",), ("video_file",), ("video", "info")], ids="+".join)
def test_only_the_requested_outputs_are_made(caller, outputs):
    answer = caller.infer(prompt="a", seed=1, outputs=outputs)
    assert {name: answer.as_numpy(name) is not None for name in ("video", "video_file", "info")} == {
        name: name in outputs for name in ("video", "video_file", "info")
    }
    if "info" in outputs:  # nothing was encoded on the way
        assert "encode" not in json.loads(answer.as_numpy("info")[0, 0])["timings_ms"]


def test_request_that_names_no_output_gets_all(caller):
    answer = caller.infer(prompt="a", outputs=())
    assert all(answer.as_numpy(name) is not None for name in ("video", "video_file", "info"))


@pytest.mark.parametrize(("budget", "steps"), [("slow", SLOW), ("fast", FAST), ("3", FAST), ("full", range(STEPS))])
def test_budget_decides_the_computed_steps(caller, budget, steps):
    assert caller.info(prompt="a", budget=budget)["computed_steps"] == list(steps)


def test_a_range_of_an_idle_server_is_its_ceiling_and_the_client_may_say_who_it_is(caller):
    info = caller.info(prompt="a", budget="fast..slow", client_id="me", deadline_ms=60_000)
    assert (info["budget"], info["chosen_budget"], info["computed_steps"]) == ("fast..slow", len(SLOW), list(SLOW))
    assert info["eta_ms"] > 0


def test_seed_is_drawn_where_none_is_given_and_told(caller):
    first, second = (caller.infer(prompt="a", outputs=("video", "info")) for _ in range(2))
    seed = json.loads(first.as_numpy("info")[0, 0])["seed"]
    assert seed != json.loads(second.as_numpy("info")[0, 0])["seed"]
    again = caller.infer(prompt="a", seed=seed, outputs=("video",))
    assert np.array_equal(again.as_numpy("video"), first.as_numpy("video"))


def test_mp4_shows_the_video(caller):
    answer = caller.infer(prompt="a", seed=3, outputs=("video", "video_file"))
    with av.open(BytesIO(answer.as_numpy("video_file")[0, 0])) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert frames.shape == SHAPE
    assert np.abs(frames - answer.as_numpy("video")[0].astype(int)).mean() < 25  # noise, at 4:2:0


@pytest.mark.parametrize("file_format", ["gif", "webp"])
def test_other_file_formats(caller, file_format):
    answer = caller.infer(prompt="a", file_format=file_format, outputs=("video_file",))
    with Image.open(BytesIO(answer.as_numpy("video_file")[0, 0])) as image:
        assert (image.format, image.n_frames, image.size) == (file_format.upper(), FRAMES, (SIZE, SIZE))


def test_batch_is_its_rows(caller):
    rows = {
        "prompt": ["a red circle", "a blue square", "naïve 猫"],
        "seed": [1, 2, 3],
        "budget": ["full", "fast", "slow"],
    }
    answer = caller.infer(**rows, outputs=("video", "info", "video_file"))
    infos = [json.loads(info) for info in answer.as_numpy("info")[:, 0]]
    assert [(info["seed"], info["budget"]) for info in infos] == [(1, "full"), (2, "fast"), (3, "slow")]
    assert answer.as_numpy("video_file").shape == (3, 1)
    for row in range(3):
        alone = caller.infer(**{name: values[row] for name, values in rows.items()}, outputs=("video",))
        difference = alone.as_numpy("video")[0].astype(int) - answer.as_numpy("video")[row]
        assert np.abs(difference).max() <= 1


def test_bare_config_serves_all_the_same(caller):
    config = caller.client.get_model_config("narrow")
    config = (
        config
        if caller.protocol == "http"
        else json.loads(json.dumps({"max_batch_size": config.config.max_batch_size}))
    )
    assert config["max_batch_size"] == 4
    assert caller.info("narrow", prompt=["a", "b"])["num_inference_steps"] == STEPS


def test_model_without_batching(caller):
    prompt = np.array([b"a"], dtype=object)
    answer = caller.infer("unbatched", prompt=prompt, seed=np.array([3]), outputs=("video", "info", "video_file"))
    assert answer.as_numpy("video").shape == SHAPE
    assert answer.as_numpy("info").shape == answer.as_numpy("video_file").shape == (1,)


def test_many_at_once(grpc):
    answers = queue.Queue()
    inputs = [grpc.tensors(prompt="a red circle", seed=seed) for seed in range(12)]
    for tensors in inputs:
        grpc.client.async_infer("tiny", tensors, lambda result, error: answers.put(error or result))
    infos = [json.loads(answers.get(timeout=60).as_numpy("info")[0, 0]) for _ in inputs]
    assert sorted(info["seed"] for info in infos) == list(range(12))


def test_grpc_stream(grpc):
    answers = queue.Queue()
    grpc.client.start_stream(lambda result, error: answers.put(error or result))
    grpc.client.async_stream_infer("tiny", grpc.tensors(prompt="a", seed=5))
    assert json.loads(answers.get(timeout=60).as_numpy("info")[0, 0])["seed"] == 5
    grpc.client.stop_stream()


def test_generate_endpoint_refuses_unknown_keys(server):
    """It cannot do more: it makes every output, and an mp4 in JSON is no JSON."""
    status, answer = post(server, "/v2/models/tiny/generate", {"prompt": "a", "sede": 5, "id": "mine"})
    assert status == 400
    assert "unknown request parameter 'sede'; none is allowed" in answer["error"]


def post(server, path, body):
    connection = http.client.HTTPConnection(server.http_url, timeout=60)
    connection.request("POST", path, json.dumps(body), {"Connection": "close"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer
