"""An asyncio client for loads: open loops, whose latency counts from the intended arrival, and closed loops.

A client that waits for an answer before it sends the next request stops asking while the server is slow, and never
sees the queue that real callers would stand in ("coordinated omission"). An open loop sends every request at its time
whatever became of the others, and if it ever sends late, the delay counts as latency, too.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from benchmarks.load.arrivals import Ask

OK, REFUSED, FAILED, SILENT = "ok", "refused", "failed", "silent"
_CHANNEL = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_CONNECT_S = 30.0


@dataclass(frozen=True)
class Answer:
    """What became of one request; all times in seconds from the beginning of the load.

    Attributes
    ----------
    at_s : float
        The intended arrival.
    sent_s, done_s : float
        When it was really sent, and when its answer was there.
    outcome : str
        ``ok``; ``refused``, which is UNAVAILABLE; ``failed``, any other error; ``silent``, no answer in time.
    budget : str
        What was asked for.
    computed : int or None
        Steps that were computed.
    error : str
        The server's words.
    """

    at_s: float
    sent_s: float
    done_s: float
    outcome: str
    budget: str
    computed: int | None = None
    error: str = ""

    @property
    def latency_s(self) -> float:
        """Seconds from the intended arrival to the answer."""
        return self.done_s - self.at_s


Send = Callable[[Ask], Awaitable[dict[str, Any]]]


def run_open(url: str, model: str, asks: Sequence[Ask], *, patience_s: float) -> list[Answer]:
    """Send every request at its time over gRPC; return an answer for each, in the same order."""
    return _run(url, model, patience_s, lambda send: open_loop(send, asks))


def run_closed(url: str, model: str, asks: Sequence[Ask], *, users: int, patience_s: float) -> list[Answer]:
    """Keep `users` requests in flight until all are answered."""
    return _run(url, model, patience_s, lambda send: closed_loop(send, asks, users))


async def open_loop(send: Send, asks: Sequence[Ask]) -> list[Answer]:
    """Send every request at its time, whatever became of the others."""
    began_s = time.perf_counter()

    async def one(ask: Ask) -> Answer:
        await asyncio.sleep(max(0.0, began_s + ask.at_s - time.perf_counter()))
        return await _answered(send, ask, ask.at_s, began_s)

    return await asyncio.gather(*map(one, asks))


async def closed_loop(send: Send, asks: Sequence[Ask], users: int) -> list[Answer]:
    """Let each user send the next request as soon as the user's last one is answered."""
    began_s = time.perf_counter()
    left: Iterator[tuple[int, Ask]] = iter(enumerate(asks))
    answers: dict[int, Answer] = {}

    async def user() -> None:
        for number, ask in left:
            answers[number] = await _answered(send, ask, time.perf_counter() - began_s, began_s)

    await asyncio.gather(*(user() for _ in range(users)))
    return [answers[number] for number in range(len(asks))]


async def _answered(send: Send, ask: Ask, at_s: float, began_s: float) -> Answer:
    sent_s = time.perf_counter() - began_s
    outcome, computed, error = OK, None, ""
    try:
        computed = len((await send(ask))["computed_steps"])
    except TimeoutError:
        outcome = SILENT
    except InferenceServerException as exc:
        outcome = REFUSED if exc.status() == "StatusCode.UNAVAILABLE" else FAILED
        error = str(exc.message())
    return Answer(at_s, sent_s, time.perf_counter() - began_s, outcome, ask.budget, computed, error)


def _run(
    url: str, model: str, patience_s: float, loop: Callable[[Send], Coroutine[Any, Any, list[Answer]]]
) -> list[Answer]:
    async def main() -> list[Answer]:
        async with triton.InferenceServerClient(url, channel_args=_CHANNEL) as client:
            async with asyncio.timeout(_CONNECT_S):  # connecting is no part of the first request's latency
                await client.is_server_ready()
            return await loop(lambda ask: _infer(client, model, ask, patience_s))

    gc.collect()
    gc.disable()  # a pause of this process is no latency of the server
    try:
        return asyncio.run(main())
    finally:
        gc.enable()


async def _infer(client: triton.InferenceServerClient, model: str, ask: Ask, patience_s: float) -> dict[str, Any]:
    outputs = [triton.InferRequestedOutput(name) for name in ("video", "info")]
    async with asyncio.timeout(patience_s):
        result = await client.infer(model, tensors(ask), outputs=outputs, timeout=ask.queue_timeout_us)
    info: dict[str, Any] = json.loads(result.as_numpy("info").ravel()[0])
    return info


def tensors(ask: Ask) -> list[triton.InferInput]:
    """Return the request's inputs."""
    values = [("prompt", "BYTES", ask.prompt.encode()), ("budget", "BYTES", ask.budget.encode())]
    arrays = [(name, kind, np.array([[value]], np.object_)) for name, kind, value in values]
    arrays.append(("seed", "INT64", np.array([[ask.seed]], np.int64)))
    if ask.deadline_ms is not None:
        arrays.append(("deadline_ms", "INT32", np.array([[ask.deadline_ms]], np.int32)))
    return [_tensor(*array) for array in arrays]


def _tensor(name: str, kind: str, array: np.ndarray[Any, Any]) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), kind)
    tensor.set_data_from_numpy(array)
    return tensor
