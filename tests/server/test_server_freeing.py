"""Whoever goes away, by whatever way and front, frees rows and memory within a step."""

import asyncio
import queue
import time

import pytest
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from tests.server.engines import attached, wait_until
from tests.server.streams import GrpcStream, Sse, one_row

pytestmark = pytest.mark.server
LONG = {"prompt": "a", "num_inference_steps": 1000}  # many seconds


@pytest.fixture
def load(server, models):
    with attached(server, models / "narrow" / "1") as front:
        assert wait_until(lambda: front.load().started == front.load().waiting == 0)
        yield front.load


def by_call(grpc, server, is_running):
    answers = queue.Queue()
    call = grpc.client.async_infer("narrow", grpc.tensors(**LONG), lambda result, error: answers.put(error or result))
    assert wait_until(is_running)
    call.cancel()
    assert answers.get(timeout=30).status() == "StatusCode.CANCELLED"


def by_client_timeout(grpc, server, is_running):
    with pytest.raises(InferenceServerException, match="Deadline"):
        grpc.client.infer("narrow", grpc.tensors(**LONG), client_timeout=1.0)


def by_stream(grpc, server, is_running):
    stream = GrpcStream(server)
    stream.send("narrow_stream", caller=grpc, **LONG)
    assert stream.next()[0]["event"] == "accepted"
    assert wait_until(is_running)
    stream.close(cancel=True)


def by_stream_of_the_unary_model(grpc, server, is_running):
    answers = queue.Queue()
    grpc.client.start_stream(lambda result, error: answers.put(error or result))
    grpc.client.async_stream_infer("narrow", grpc.tensors(**LONG))
    assert wait_until(is_running)
    grpc.client.stop_stream(cancel_requests=True)


def by_closed_sse(grpc, server, is_running):
    sse = Sse(server, "narrow_stream", **LONG)
    assert sse.next()
    assert wait_until(is_running)
    sse.close()


def aio_tensors(**values):
    tensors = []
    for name, value in values.items():
        array = one_row(name, value)
        tensors.append(tritonclient.grpc.aio.InferInput(name, [1], "INT32" if array.dtype == "int32" else "BYTES"))
        tensors[-1].set_data_from_numpy(array)
    return tensors


def by_aio_stream(grpc, server, is_running):
    async def run():
        async with tritonclient.grpc.aio.InferenceServerClient(server.grpc_url) as client:

            async def requests():
                yield {"model_name": "narrow_stream", "inputs": aio_tensors(**LONG)}

            responses = client.stream_infer(requests())
            async for _ in responses:
                break
            assert await asyncio.to_thread(wait_until, is_running)
            responses.cancel()

    asyncio.run(run())


WAYS = [by_call, by_client_timeout, by_stream, by_stream_of_the_unary_model, by_closed_sse, by_aio_stream]


@pytest.mark.parametrize("leave", WAYS, ids=lambda way: way.__name__)
def test_leaving_frees_rows_and_memory(grpc, server, load, leave):
    leave(grpc, server, lambda: load().started == 1)
    left = time.monotonic()
    assert wait_until(lambda: (load().started, load().waiting, load().cached_bytes) == (0, 0, 0), timeout_s=30)
    assert time.monotonic() - left < 30  # of the many that the request would have taken
    assert grpc.info("narrow", prompt="a")["budget"] == "full"
