"""The streaming model: what is told, in which order, and that it has exactly one end."""

import base64
import json
from io import BytesIO

import av
import numpy as np
import pytest
from PIL import Image

from tests.server.callers import INVALID
from tests.server.engines import wait_until
from tests.server.repository import FAST, STEPS
from tests.server.streams import GrpcStream, Sse
from tests.tiny_latte import FRAMES, SIZE

pytestmark = pytest.mark.server


@pytest.fixture
def stream(server):
    stream = GrpcStream(server)
    yield stream
    stream.close(cancel=True)


def assert_in_order(events, steps=STEPS, computed=None):
    assert events[0].keys() == {"event", "budget", "eta_ms"}
    assert [event["event"] for event in events] == ["accepted", *["progress"] * steps, "result"]
    progress = events[1:-1]
    assert [event["step"] for event in progress] == list(range(1, steps + 1))
    assert {event["num_steps"] for event in progress} == {steps}
    assert [step for step, event in enumerate(progress) if event["computed"]] == list(computed or range(steps))
    assert all(event["eta_ms"] is None or event["eta_ms"] >= 0 for event in progress)


def test_events_over_grpc(stream, grpc):
    stream.send(prompt="a", seed=7, budget="fast", outputs=("info", "video", "video_file"), caller=grpc)
    answers = stream.rest()
    assert_in_order([event for event, _, _ in answers], computed=FAST)
    assert [is_final for _, is_final, _ in answers] == [False] * (STEPS + 1) + [True]
    last = answers[-1][2]
    assert last.as_numpy("video").shape == (FRAMES, SIZE, SIZE, 3)
    assert av.open(BytesIO(last.as_numpy("video_file")[0])).streams.video[0].frames == FRAMES
    assert stream.is_silent()


def test_video_is_that_of_the_unary_model(stream, grpc):
    stream.send(prompt="a red circle", seed=7, outputs=("video",), caller=grpc)
    (answer,) = stream.rest()  # who does not ask for info gets no events
    unary = grpc.infer(prompt="a red circle", seed=7, outputs=("video",)).as_numpy("video")[0]
    assert np.array_equal(answer[2].as_numpy("video"), unary)


def test_previews_come_every_n_steps_and_not_with_the_last(stream, grpc):
    stream.send(prompt="a", preview_every=2, caller=grpc)
    events = [event for event, _, _ in stream.rest()]
    assert [event["step"] for event in events if "preview" in event] == [2, 4]
    with Image.open(BytesIO(base64.b64decode(events[2]["preview"]))) as image:
        assert (image.format, image.size) == ("PNG", (SIZE, SIZE))


def test_events_over_sse_and_the_file_as_text(server):
    sse = Sse(server, prompt="a", seed=3, file_encoding="base64", preview_every=3)
    said = sse.rest()
    events = [json.loads(each["info"]) for each in said]
    assert_in_order(events)
    assert ["preview" in event for event in events].count(True) == 1
    assert "video" not in said[-1]
    assert av.open(BytesIO(base64.b64decode(said[-1]["video_file"]))).streams.video[0].frames == FRAMES


def test_generate_of_the_unary_model_takes_base64(server):
    sse = Sse(server, "tiny", "generate", prompt="a", file_encoding="base64")
    answer = json.loads(sse.response.read())
    assert av.open(BytesIO(base64.b64decode(answer["video_file"]))).streams.video[0].frames == FRAMES
    assert "video" not in answer
    assert json.loads(answer["info"])["budget"] == "full"


def test_several_streams_interleave_and_each_has_one_end(stream, grpc):
    for number in range(4):
        stream.send(prompt="a", seed=number, request_id=str(number), caller=grpc)
    events = {str(number): [] for number in range(4)}
    while not all(seen and seen[-1]["event"] == "result" for seen in events.values()):
        event, _, answer = stream.next()
        events[answer.get_response().id].append(event)
    for number, seen in events.items():
        assert_in_order(seen)
        assert seen[-1]["seed"] == int(number)
    assert stream.is_silent()


MALFORMED = {
    "no previews": ({"prompt": "a", "preview_every": 0}, "preview_every is 0; at least 1 is allowed"),
    "encoding": ({"prompt": "a", "file_encoding": "hex"}, "file_encoding is 'hex'; allowed are raw, base64"),
    "seed": ({"prompt": "a", "seed": -1}, "seed is -1"),
    "budget": ({"prompt": "a", "budget": "ultra"}, "fast"),
    "no prompt": ({"seed": 1}, "prompt"),
    "steps outside the plan": ({"prompt": "a", "budget": "fast", "num_inference_steps": 7}, "num_inference_steps"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_request_gets_one_error_and_no_event(stream, grpc, case):
    request, said = MALFORMED[case]
    stream.send(caller=grpc, **request)
    (error,) = stream.rest()
    assert said in error.message()
    assert stream.is_silent(0.3)
    stream.send(prompt="a", num_inference_steps=1, caller=grpc)
    assert_in_order([event for event, _, _ in stream.rest()], steps=1)


def test_preview_is_of_streams_only(grpc):
    error = grpc.refusal(prompt="a", preview_every=np.ones((1, 1), np.int32))
    assert error.status() == INVALID["grpc"]


def test_error_after_progress_is_the_end(stream, grpc):
    stream.send(prompt="a", guidance_scale=3e38, caller=grpc)
    *events, error = stream.rest()
    assert events[0][0]["event"] == "accepted"
    assert "the latents are not finite" in error.message()
    assert stream.is_silent(0.3)


def test_reader_who_does_not_read_holds_up_nobody(server, grpc):
    stalled = [
        Sse(server, prompt="a", preview_every=1, num_inference_steps=60, file_encoding="base64") for _ in range(3)
    ]
    assert grpc.info(prompt="a", deadline_ms=60_000)["budget"] == "full"
    for sse in stalled:
        events = [json.loads(each["info"])["event"] for each in sse.rest()]
        assert (events[0], events[-1], events.count("result")) == ("accepted", "result", 1)
    assert wait_until(lambda: grpc.info(prompt="a")["timings_ms"]["queue"] < 10_000)
