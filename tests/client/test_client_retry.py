"""When a request is sent again, and when never."""

import asyncio
import os
import signal
import threading
import time

import pytest

from lemica_backend.triton_server import TritonServer
from lemica_client import (
    Client,
    InvalidRequestError,
    ModelNotFoundError,
    RequestTimeoutError,
    ServerError,
    ServerUnavailableError,
)
from lemica_client.retry import FIRST_PAUSE_S, LONGEST_PAUSE_S, Retries
from tests.client.stand_in import add_stand_in

URL = "grpc://127.0.0.1:8001"


def busy(count):
    return [ServerUnavailableError("queue full", status="503") for _ in range(count)]


def test_unavailable_is_tried_again_twice(make_transport):
    transport = make_transport(failing=busy(2))
    assert Client(URL, transport=transport).generate("x").info["seed"] == 7
    assert len(transport.requests) == 3
    first, second = transport.pauses_s
    assert 0 <= first <= FIRST_PAUSE_S
    assert 0 <= second <= 2 * FIRST_PAUSE_S


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (2, 3)])
def test_the_last_error_is_raised(make_transport, retries, attempts):
    transport = make_transport(failing=(errors := busy(5)))
    with pytest.raises(ServerUnavailableError) as caught:
        Client(URL, transport=transport, retries=retries).generate("x")
    assert (len(transport.requests), caught.value) == (attempts, errors[attempts - 1])


@pytest.mark.parametrize(
    "error", [ServerError("failed"), InvalidRequestError("no"), ServerUnavailableError("lost", may_be_running=True)]
)
def test_nothing_else_is_tried_again(make_transport, error):
    transport = make_transport(failing=[error])
    with pytest.raises(type(error)):
        Client(URL, transport=transport).generate("x")
    assert len(transport.requests) == 1


SHUTTING_DOWN = "the server is shutting down"


@pytest.mark.parametrize(
    "last",
    [
        ModelNotFoundError("Request for unknown model: 'x' has no available versions", status="404"),
        RequestTimeoutError("no answer"),
        ServerUnavailableError("lost", may_be_running=True),
    ],
)
def test_another_last_error_tells_the_first(make_transport, last):
    words = str(last)
    failing = [ServerUnavailableError(SHUTTING_DOWN), *busy(1), last]
    with pytest.raises(type(last)) as caught:
        Client(URL, transport=make_transport(failing=failing)).generate("x")
    assert caught.value is last
    assert str(last) == f"{words}; at first: {SHUTTING_DOWN}"


def test_a_stream_tells_the_first_error_too(make_transport):
    class Streaming(make_transport):
        async def stream(self, *_):
            raise self.failing.pop(0)
            yield

    transport = Streaming(failing=[ServerUnavailableError(SHUTTING_DOWN), ModelNotFoundError("gone")])
    with pytest.raises(ModelNotFoundError, match=f"^gone; at first: {SHUTTING_DOWN}$"):
        list(Client(URL, transport=transport).stream("x"))


def test_a_deadline_counts_from_the_first_attempt(make_transport):
    transport = make_transport(failing=busy(1))
    Client(URL, transport=transport).generate("x", deadline_ms=60_000)
    first, second = (inputs["deadline_ms"].array.item() for _, inputs, *_ in transport.requests)
    assert first == 60_000
    assert 50_000 < second <= 60_000 - 1e3 * min(transport.pauses_s[0], 0.05)  # what the stand-in sleeps at most


@pytest.mark.parametrize("limit", [{"deadline_ms": 30}, {"timeout_s": 0.03}])
def test_no_pause_goes_beyond_the_limit(make_transport, limit):
    transport = make_transport(failing=busy(100))
    with pytest.raises(ServerUnavailableError):
        Client(URL, transport=transport, retries=100).generate("x", **limit)
    assert sum(transport.pauses_s) < 0.03


def test_pauses_double_up_to_a_limit(monkeypatch):
    monkeypatch.setattr("lemica_client.retry.random.uniform", lambda low, high: high)
    pauses_s = []

    async def sleep(seconds):
        pauses_s.append(seconds)

    async def pause_often():
        retries = Retries(8, time.monotonic() + 1000, sleep)
        for error in busy(8):
            await retries.pause_after(error)

    asyncio.run(pause_often())
    assert pauses_s == [min(FIRST_PAUSE_S * 2**index, LONGEST_PAUSE_S) for index in range(8)]


@pytest.mark.parametrize("retries", [-1, 1.5, True, "2", 101])
def test_retries_are_a_number(retries, make_transport):
    with pytest.raises(InvalidRequestError, match="retries"):
        Client(URL, transport=make_transport(), retries=retries)


@pytest.mark.server
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_connection_that_breaks_in_the_middle_is_not_tried_again(scheme, tmp_path):
    add_stand_in(tmp_path / "models", "large", program="large_model.py", is_decoupled=False)
    with TritonServer(tmp_path / "models", log=tmp_path / "server.log", exit_timeout_s=1) as server:
        server.wait_ready(timeout_s=180)
        url = f"{scheme}://{server.grpc_url if scheme == 'grpc' else server.http_url}"
        with Client(url, model="large", retries=5) as client:
            client.generate("x")
            threading.Timer(1, os.kill, (server.pid, signal.SIGKILL)).start()
            with pytest.raises(ServerUnavailableError) as caught:
                client.generate("x", num_inference_steps=2000)
            assert caught.value.may_be_running
