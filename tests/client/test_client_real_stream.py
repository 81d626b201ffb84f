"""Streams of the `lemica` backend itself, by both protocols, blocking and for asyncio."""

import asyncio

import numpy as np
import pytest

from lemica_client import Accepted, AsyncClient, Client, InvalidRequestError, Progress, ServerError, Video
from tests.client.repository import FAST_STEPS, NUM_STEPS
from tests.server.scrape import Scrape, scrape_until

pytestmark = pytest.mark.server
FILE = {"file_format": "gif", "want_frames": False}


@pytest.fixture(params=["grpc", "http"])
def url(request, server):
    return f"grpc://{server.grpc_url}" if request.param == "grpc" else f"http://{server.http_url}"


@pytest.fixture
def client(url):
    with Client(url) as client:
        yield client


def test_a_stream_tells_every_step_and_gives_the_unary_video(client):
    first, *steps, video = client.stream("a", seed=5, budget="fast", preview_every=4, **FILE)
    assert isinstance(first, Accepted)
    assert first.budget == "fast"
    assert [step.step for step in steps] == list(range(1, NUM_STEPS + 1))
    assert [step.step - 1 for step in steps if step.is_computed] == FAST_STEPS
    assert [step.step for step in steps if step.preview is not None] == [4, 8]
    assert steps[3].preview.startswith(b"\x89PNG")
    assert video.file_bytes == client.generate("a", seed=5, budget="fast", **FILE).file_bytes


def test_frames_stream_over_grpc(server):
    with Client(server.grpc_url) as client:
        *_, video = client.stream("a", seed=5)
        np.testing.assert_array_equal(video.frames, client.generate("a", seed=5).frames)


def test_a_refusal_has_the_type_and_the_words_of_a_unary_one(client):
    said = []
    for ask in (lambda: list(client.stream("a", budget="ultra", **FILE)), lambda: client.generate("a", budget="ultra")):
        with pytest.raises(InvalidRequestError, match="budget") as caught:
            ask()
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_an_error_after_steps_ends_the_stream(client):
    events = client.stream("a", guidance_scale=3e38, **FILE)
    assert isinstance(next(events), Accepted)
    with pytest.raises(ServerError, match="not finite") as caught:
        list(events)
    assert type(caught.value) is ServerError


def test_leaving_a_stream_cancels_on_the_server(server, client):
    before = cancelled(server)
    for event in client.stream("a", budget="full", num_inference_steps=1000, **FILE):
        if isinstance(event, Progress):
            break
    scrape_until(server, lambda _: cancelled(server) == before + 1)


def test_a_cancelled_unary_task_of_asyncio_cancels_on_the_server(server):
    before = cancelled(server)

    async def leave():
        async with AsyncClient(server.grpc_url) as client:
            task = asyncio.create_task(client.generate("a", budget="full", num_inference_steps=1000))
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(scrape_until, server, lambda _: cancelled(server) == before + 1)

    asyncio.run(leave())


def test_streams_of_one_client_run_at_the_same_time(url):
    async def last(client, seed):
        return [event async for event in client.stream("a", seed=seed, **FILE)][-1]

    async def make_three():
        async with AsyncClient(url) as client:
            return await asyncio.gather(*(last(client, seed) for seed in range(3)))

    videos = asyncio.run(make_three())
    assert all(isinstance(video, Video) for video in videos)
    assert [video.info["seed"] for video in videos] == [0, 1, 2]


def cancelled(server):
    return sum(Scrape(server).by("lemica_requests_total", "outcome", outcome="cancelled").values())
