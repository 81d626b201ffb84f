"""Frames through system shared memory of a real server: the same pixels, and nothing left behind."""

import asyncio
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lemica_client import AsyncClient, Client, RequestTimeoutError, ServerError
from lemica_client import shared_memory as memory

pytestmark = pytest.mark.server
SIZE = {"height": 256, "width": 256, "num_frames": 8}  # 1.5 MiB


@pytest.fixture(autouse=True)
def _smaller_frames_are_worth_it(monkeypatch):
    for scheme in memory.WORTH_BYTES:
        monkeypatch.setitem(memory.WORTH_BYTES, scheme, 1 << 20)


def regions_here():
    return sorted(path.name for path in Path("/dev/shm").glob("lemica_*") if len(path.name) == 39)


def regions_there(stand_in):
    import tritonclient.grpc

    with tritonclient.grpc.InferenceServerClient(stand_in.grpc_url) as client:
        return list(client.get_system_shared_memory_status(as_json=True).get("regions", {}))


@pytest.fixture
def made(monkeypatch):
    """Count the regions that the client makes."""
    sizes = []

    class Counted(memory.Region):
        def __init__(self, byte_size):
            super().__init__(byte_size)
            sizes.append(byte_size)

    monkeypatch.setattr(memory, "Region", Counted)
    return sizes


def expected(seed):
    frames = np.full((8, 256, 256, 3), seed, np.uint8)
    frames[-1, -1, -1] = (1, 2, 3)
    return frames


def test_the_second_video_comes_through_shared_memory(stand_in, stand_in_url, made):
    before = regions_here()
    with Client(stand_in_url, model="large") as client:
        for seed in (5, 6, 7):
            np.testing.assert_array_equal(client.generate("x", seed=seed, **SIZE).frames, expected(seed))
    assert made == [expected(0).nbytes] * 2
    assert (regions_here(), regions_there(stand_in)) == (before, [])


def test_asyncio_shares_memory_too(stand_in, stand_in_url, made):
    async def make():
        async with AsyncClient(stand_in_url, model="large") as client:
            await client.generate("x", seed=1, **SIZE)
            return await asyncio.gather(*(client.generate("x", seed=seed, **SIZE) for seed in (2, 3)))

    for seed, video in zip((2, 3), asyncio.run(make()), strict=True):
        np.testing.assert_array_equal(video.frames, expected(seed))
    assert (len(made), regions_there(stand_in)) == (2, [])


@pytest.mark.parametrize(("mode", "options", "count"), [(False, SIZE, 0), ("auto", {}, 0), (True, {}, 1)])
def test_the_mode_decides(stand_in_url, made, mode, options, count):
    with Client(stand_in_url, model="large", shared_memory=mode) as client:
        for _ in range(2):
            client.generate("x", **options)
    assert len(made) == count


def refuse(region):
    raise ServerError("no shared memory here")


def test_a_refused_region_falls_back_to_the_wire_for_good(stand_in_url, made, monkeypatch):
    with Client(stand_in_url, model="large") as client:
        monkeypatch.setattr(client._core.transport, "register", refuse)
        for seed in (5, 6, 7):
            np.testing.assert_array_equal(client.generate("x", seed=seed, **SIZE).frames, expected(seed))
    assert len(made) == 1
    assert regions_here() == []


def test_a_region_that_must_be_and_is_refused_is_an_error(stand_in_url, monkeypatch):
    with Client(stand_in_url, model="large", shared_memory=True) as client:
        client.generate("x")
        monkeypatch.setattr(client._core.transport, "register", refuse)
        with pytest.raises(ServerError, match="no shared memory here"):
            client.generate("x")


def test_frames_that_grew_come_inline_and_are_learnt_anew(stand_in_url, made):
    with Client(stand_in_url, model="large", shared_memory=True) as client:
        client.generate("x")
        key = (None, None, None)
        client._core._frames.learn(key, np.zeros((1, 2, 2, 3), np.uint8))  # as if the model made smaller ones before
        assert client.generate("x", seed=4).frames.shape == (8, 8, 8, 3)
        assert client.generate("x", seed=5).frames[0, 0, 0, 0] == 5
    assert made == [12, 8 * 8 * 8 * 3]


def test_a_given_up_request_leaves_no_region_behind(stand_in, made):
    with Client(stand_in.grpc_url, model="large") as client:
        client.generate("x", **SIZE)
        with pytest.raises(RequestTimeoutError):
            client.generate("x", num_inference_steps=40, timeout_s=0.4, **SIZE)  # the server writes to it all the same
        assert regions_here() == []
        time.sleep(2)
        np.testing.assert_array_equal(client.generate("x", seed=3, **SIZE).frames, expected(3))
    assert (len(made), regions_there(stand_in)) == (2, [])


def test_threads_have_regions_of_their_own(stand_in, stand_in_url):
    with Client(stand_in_url, model="large") as client:
        client.generate("x", **SIZE)
        got = {}
        threads = [
            threading.Thread(target=lambda seed=seed: got.update({seed: client.generate("x", seed=seed, **SIZE)}))
            for seed in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for seed in range(4):
            np.testing.assert_array_equal(got[seed].frames, expected(seed))
    assert regions_there(stand_in) == []
