"""What `Client` sends and makes of the answers, without a server."""

import json
import time

import numpy as np
import pytest

from lemica_client import (
    Client,
    InvalidRequestError,
    ModelNotFoundError,
    RequestTimeoutError,
    ServerError,
    ServerUnavailableError,
)

URL = "grpc://127.0.0.1:8001"
OPTIONS = {
    "negative_prompt": "blur",
    "seed": 3,
    "guidance_scale": 2.5,
    "num_inference_steps": 20,
    "height": 64,
    "width": 48,
    "num_frames": 16,
    "budget": "slow",
    "deadline_ms": 500,
    "priority": 2,
    "client_id": "me",
    "file_format": "gif",
}


@pytest.fixture
def transport(make_transport):
    return make_transport()


@pytest.fixture
def client(transport):
    with Client(URL, transport=transport) as client:
        yield client


def test_only_given_options_are_sent(client, transport):
    client.generate("a cat")
    model, inputs, outputs, timeout_s = transport.requests[0]
    assert (model, list(inputs), outputs) == ("latte_shapes", ["prompt"], ["video", "info"])
    assert 599 < timeout_s <= 600


def test_every_option_is_sent(client, transport):
    client.generate("a cat", **OPTIONS, timeout_s=5)
    _, inputs, outputs, timeout_s = transport.requests[0]
    sent = {name: tensor.array.item() for name, tensor in inputs.items()}
    assert sent == {"prompt": b"a cat"} | {k: v.encode() if isinstance(v, str) else v for k, v in OPTIONS.items()}
    assert outputs == ["video", "video_file", "info"]
    assert 4 < timeout_s <= 5


@pytest.mark.parametrize(("max_batch_size", "shape"), [(8, (1, 1)), (0, (1,))])
def test_the_models_batch_dimension_is_asked_for_once(make_transport, max_batch_size, shape):
    transport = make_transport(config={"max_batch_size": max_batch_size} if max_batch_size else {})
    client = Client(URL, transport=transport)
    for _ in range(3):
        assert client.generate("x", seed=1).frames.shape == (4, 6, 8, 3)
    assert transport.config_reads == 1
    assert {tensor.array.shape for _, inputs, *_ in transport.requests for tensor in inputs.values()} == {shape}


def test_a_bad_request_is_refused_before_anything_is_sent(client, transport):
    for options in ({"seed": 1.5}, {"file_format": "avi"}, {"want_frames": False}, {"timeout_s": 0}):
        with pytest.raises(InvalidRequestError):
            client.generate("x", **options)
    assert (transport.config_reads, transport.requests) == (0, [])


def test_the_answer_becomes_a_video(client):
    video = client.generate("x")
    assert (video.frames.dtype, video.info["seed"], video.fps, video.file_bytes) == (np.uint8, 7, 8.0, None)


def test_frames_can_stay_on_the_server(client, transport):
    video = client.generate("x", file_format="mp4", want_frames=False)
    assert transport.requests[0][2] == ["video_file", "info"]
    assert (video.file_bytes, video.file_format) == (b"a file", "mp4")


@pytest.mark.parametrize("info", ["{", "[1]", "nonsense"])
def test_an_info_that_is_no_json_object_is_the_servers_fault(make_transport, info):
    with pytest.raises(ServerError, match="info"):
        Client(URL, transport=make_transport(info=info)).generate("x")


def test_errors_of_the_transport_pass_unchanged(make_transport):
    error = ModelNotFoundError("no model", status="404")
    with pytest.raises(ModelNotFoundError) as caught:
        Client(URL, transport=make_transport(raises=error)).generate("x")
    assert caught.value is error


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_a_time_limit_is_positive(timeout_s, transport):
    with pytest.raises(InvalidRequestError, match="timeout_s"):
        Client(URL, timeout_s=timeout_s, transport=transport)


def test_plan_and_config_are_read_anew_each_time(client, transport):
    assert client.plan() == {"plan_id": "p1", "budgets": {}}
    transport.config = {"parameters": {}}
    assert client.plan() is None
    assert client.model_config() == {"parameters": {}}
    transport.config = {"parameters": {"cache_plan": {"string_value": "{"}}}
    with pytest.raises(ServerError, match="cache_plan"):
        client.plan()


def test_wait_until_ready_outlives_a_server_that_is_starting(make_transport):
    starting = [ServerUnavailableError("refused"), RequestTimeoutError("slow"), False, True]
    Client(URL, transport=make_transport(ready=starting)).wait_until_ready(10)


@pytest.mark.parametrize(("ready", "says"), [(False, "latte_shapes"), (ServerUnavailableError("refused"), "refused")])
def test_wait_until_ready_says_what_was_missing(make_transport, ready, says):
    start = time.monotonic()
    with pytest.raises(ServerUnavailableError, match=says):
        Client(URL, transport=make_transport(ready=[ready])).wait_until_ready(0.3)
    assert 0.2 < time.monotonic() - start < 2


def test_leaving_the_context_closes(transport):
    with Client(URL, transport=transport):
        pass
    assert transport.is_closed


def test_the_info_is_kept_as_it_came(make_transport):
    info = {"unknown": [1, {"a": None}]}
    assert Client(URL, transport=make_transport(info=json.dumps(info))).generate("x").info == info
