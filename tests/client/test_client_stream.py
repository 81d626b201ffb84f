"""Streams over a real server with a real decoupled model, by both protocols, blocking and for asyncio."""

import asyncio
import gc
import threading
from contextlib import aclosing

import numpy as np
import pytest

from lemica_client import (
    Accepted,
    AsyncClient,
    Client,
    InvalidRequestError,
    ModelNotFoundError,
    Progress,
    RequestCancelledError,
    RequestTimeoutError,
    ServerError,
    ServerUnavailableError,
    Video,
)
from tests.client.ctrl_c import press_ctrl_c

pytestmark = pytest.mark.server
LONG = 2000  # steps of 30 ms: a minute that nobody waits for
FILE = {"file_format": "gif", "want_frames": False}


class Awaited:
    """`AsyncClient` behind the blocking interface, one event loop for all: the same tests hold for both."""

    def __init__(self, url, **settings):
        self._runner = asyncio.Runner()
        self._client = AsyncClient(url, **settings)

    def generate(self, *arguments, **options):
        return self._runner.run(self._client.generate(*arguments, **options))

    def models(self):
        return self._runner.run(self._client.models())

    def stream(self, *arguments, **options):
        events = self._client.stream(*arguments, **options)
        try:
            while True:
                try:
                    event = self._runner.run(anext(events))
                except StopAsyncIteration:
                    return
                yield event
        finally:
            self._runner.run(events.aclose())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(params=[Client, Awaited], ids=["sync", "asyncio"])
def client(request, stand_in_url):
    with request.param(stand_in_url, model="toy", timeout_s=120) as client:
        yield client


def test_events_come_in_order_and_the_video_last(client):
    events = list(client.stream("x", num_inference_steps=7, seed=9, preview_every=3, **FILE))
    assert events[0] == Accepted("fast", pytest.approx(210))
    steps = events[1:-1]
    assert [(event.step, event.num_steps) for event in steps] == [(step, 7) for step in range(1, 8)]
    assert [event.is_computed for event in steps] == [True, False, False] * 2 + [True]
    assert [event.step for event in steps if event.preview is not None] == [3, 6]
    assert steps[2].preview[:2] == b"\xff\xd8"  # a JPEG
    video = events[-1]
    assert isinstance(video, Video)
    assert (video.file_bytes, video.info["seed"], video.info["computed_steps"]) == (b"GIF89ax", 9, [0, 3, 6])


def test_frames_stream_over_grpc(stand_in):
    with Client(stand_in.grpc_url, model="toy") as client:
        *_, video = client.stream("x", num_inference_steps=2, seed=5)
    np.testing.assert_array_equal(video.frames, np.full((4, 6, 8, 3), 5))


def test_frames_do_not_stream_over_http(stand_in):
    with (
        Client(f"http://{stand_in.http_url}", model="toy") as client,
        pytest.raises(InvalidRequestError, match="grpc://"),
    ):
        client.stream("x")


def test_leaving_the_iterator_cancels_on_the_server(client, ends):
    for event in client.stream("x", num_inference_steps=LONG, **FILE):
        if isinstance(event, Progress):
            break
    gc.collect()
    assert ends() == ["cancelled"]


def test_closing_the_iterator_cancels_and_the_client_goes_on(client, ends):
    events = client.stream("x", num_inference_steps=LONG, **FILE)
    assert isinstance(next(events), Accepted)
    events.close()
    assert ends() == ["cancelled"]
    assert isinstance(list(client.stream("x", num_inference_steps=2, **FILE))[-1], Video)


def test_ctrl_c_cancels_on_the_server(stand_in_url, ends):
    with Client(stand_in_url, model="toy") as client:
        events = client.stream("x", num_inference_steps=LONG, **FILE)
        next(events)
        threading.Timer(0.3, press_ctrl_c).start()
        with pytest.raises(KeyboardInterrupt):
            list(events)
        assert ends() == ["cancelled"]


def test_a_cancelled_task_cancels_on_the_server(stand_in_url, ends):
    async def cancel_in_the_middle():
        async with AsyncClient(stand_in_url, model="toy") as client:
            started = asyncio.Event()

            async def watch():
                async with aclosing(client.stream("x", num_inference_steps=LONG, **FILE)) as events:
                    async for _ in events:
                        started.set()

            task = asyncio.create_task(watch())
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel_in_the_middle())
    assert ends() == ["cancelled"]


def test_a_time_limit_ends_a_stream(client, ends):
    with pytest.raises(RequestTimeoutError):
        list(client.stream("x", num_inference_steps=LONG, timeout_s=1, **FILE))
    assert ends() == ["cancelled"]


def test_close_ends_streams_of_other_threads(stand_in, ends):
    client = Client(stand_in.grpc_url, model="toy")
    events = client.stream("x", num_inference_steps=LONG, **FILE)
    next(events)
    threading.Timer(0.3, client.close).start()
    with pytest.raises(RequestCancelledError):
        list(events)
    assert ends() == ["cancelled"]


def test_an_error_in_the_middle_ends_the_iterator(client):
    events = client.stream("fail", **FILE)
    assert isinstance(next(events), Accepted)
    with pytest.raises(ServerError, match="out of luck") as caught:
        list(events)
    assert type(caught.value) is ServerError


@pytest.fixture(params=[Client, Awaited], ids=["sync", "asyncio"])
def grpc_client(request, stand_in):
    with request.param(stand_in.grpc_url, model="toy", timeout_s=120) as client:
        yield client


def test_a_refusal_has_the_type_of_a_unary_one(grpc_client):
    with pytest.raises(InvalidRequestError, match="refused"):
        list(grpc_client.stream("refuse"))


def test_a_busy_server_is_asked_again(grpc_client, ends):
    assert isinstance(list(grpc_client.stream("busy", num_inference_steps=2))[-1], Video)
    assert ends() == ["queue full", "done"]


def test_without_retries_a_busy_server_is_an_error(stand_in, ends):
    with Client(stand_in.grpc_url, model="toy", retries=0) as client:
        with pytest.raises(ServerUnavailableError, match="queue full"):
            list(client.stream("busy"))
        assert ends() == ["queue full"]
        list(client.stream("busy", num_inference_steps=1))  # the stand-in is busy every other time


@pytest.mark.parametrize("kind", [Client, Awaited])
def test_over_http_a_refusal_without_its_code_is_a_server_error(kind, stand_in):
    with kind(f"http://{stand_in.http_url}", model="toy") as client, pytest.raises(ServerError, match="refused"):
        list(client.stream("refuse", **FILE))


def test_an_unknown_model_is_not_found(stand_in_url):
    with Client(stand_in_url, model="nothing") as client, pytest.raises(ModelNotFoundError):
        list(client.stream("x", **FILE))


def test_the_server_names_its_models(client):
    assert client.models() == ["large", "latte_like", "toy", "toy_stream"]


def test_streams_run_at_the_same_time(stand_in_url):
    async def make_three():
        async with AsyncClient(stand_in_url, model="toy") as client:

            async def last(seed):
                return [event async for event in client.stream("x", seed=seed, **FILE)][-1]

            return await asyncio.gather(*map(last, range(3)))

    assert [video.info["seed"] for video in asyncio.run(make_three())] == [0, 1, 2]


def test_generate_with_progress_tells_every_step(client):
    seen = []
    video = client.generate("x", progress=seen.append, num_inference_steps=4, **FILE)
    assert ([type(event) for event in seen], video.file_bytes) == ([Accepted, *[Progress] * 4], b"GIF89ax")


def test_generate_draws_a_bar(client, capsys):
    client.generate("x", progress=True, num_inference_steps=4, **FILE)
    assert "4/4" in capsys.readouterr().err


def test_generate_without_a_streaming_model_is_unary(stand_in_url):
    seen = []
    with Client(stand_in_url, model="large") as client:
        assert client.generate("x", progress=seen.append, seed=3).frames.shape == (8, 8, 8, 3)
    assert seen == []
