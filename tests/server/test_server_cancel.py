"""Requests that nobody waits for any more, that come too late or too many, or that fail: all are answered."""

import json
import queue
import time

import pytest
from tritonclient.utils import InferenceServerException

from tests.server.callers import INTERNAL, INVALID, UNAVAILABLE

pytestmark = pytest.mark.server
MODEL = "narrow"  # one request at a time, two waiting
LONG = {"prompt": "a", "num_inference_steps": 1000}  # many seconds


@pytest.fixture
def start(grpc):
    """Start requests that take many seconds; whatever is left of them is cancelled in the end."""
    started = []

    def start(**values):
        answers = queue.Queue()
        tensors = grpc.tensors(**LONG | values)
        call = grpc.client.async_infer(MODEL, tensors, lambda result, error: answers.put(error or result))
        started.append(call)
        time.sleep(0.3)
        return call, answers

    yield start
    for call in started:
        call.cancel()


def is_free(grpc):
    started = time.monotonic()
    info = json.loads(grpc.client.infer(MODEL, grpc.tensors(prompt="a"), client_timeout=60).as_numpy("info")[0, 0])
    return time.monotonic() - started < 20 and info["timings_ms"]["queue"] < 10_000


def test_cancel_frees_the_engine(grpc, start):
    call, answers = start()
    call.cancel()
    assert answers.get(timeout=10).status() == "StatusCode.CANCELLED"
    assert is_free(grpc)


def test_cancel_of_a_batch_frees_every_row(grpc, start):
    call, _ = start(prompt=["a", "b"], num_inference_steps=[1000, 1000])
    call.cancel()
    assert is_free(grpc)


def test_clients_timeout_frees_the_engine(grpc):
    with pytest.raises(InferenceServerException, match="Deadline"):
        grpc.client.infer(MODEL, grpc.tensors(**LONG), client_timeout=0.5)
    assert is_free(grpc)


def test_deadline_that_cannot_be_met_is_refused_at_once(caller):
    error = caller.refusal(model=MODEL, **LONG, deadline_ms=300)
    assert error.status() == UNAVAILABLE[caller.protocol]
    assert "deadline_ms is 300" in error.message()
    assert "the earliest that budget 'full' can meet is" in error.message()


def test_tritons_timeout_ends_the_request(caller):
    started = time.monotonic()
    error = caller.refusal(model=MODEL, **LONG, timeout=300_000)
    assert error.status() == UNAVAILABLE[caller.protocol]
    assert "not ready within its time limit of 0.3 s" in error.message()
    assert time.monotonic() - started < 20


def test_full_queue_is_told_at_once(caller, start):
    for _ in range(3):
        start()
    error = caller.refusal(model=MODEL, prompt="a")
    assert error.status() == UNAVAILABLE[caller.protocol]
    assert "2 requests are waiting, the limit" in error.message()


def test_a_batch_that_does_not_fit_is_refused_at_once_and_takes_no_place(grpc, start):
    for _ in range(2):
        start()
    for _ in range(3):
        error = grpc.refusal(model=MODEL, prompt=["a", "b"])
        assert error.status() == UNAVAILABLE["grpc"]
        assert "1 requests are waiting, the limit is 2; 2 more are too many" in error.message()
    _, answers = start(num_inference_steps=1)  # the place is still free
    with pytest.raises(queue.Empty):
        answers.get(timeout=0.5)


def test_a_batch_that_can_never_wait_is_the_clients_fault(caller):
    error = caller.refusal(model=MODEL, prompt=["a", "b", "c"])
    assert error.status() == INVALID[caller.protocol]
    assert "3 rows are more than may wait here, 2: send fewer at once" in error.message()


def test_fault_is_the_requests_own_and_named_by_its_id(caller):
    error = caller.refusal(prompt="a", guidance_scale=3e38, request_id="mine")
    assert error.status() == INTERNAL[caller.protocol]
    assert "request mine: the latents are not finite" in error.message()
    assert "details are in the server's log" in error.message()
    assert caller.info(prompt="a")
