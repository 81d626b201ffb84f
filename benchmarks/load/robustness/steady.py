"""Valid requests in closed loops, with every last response counted."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.load.robustness.wire import SILENT, Target, grpc_exchange, grpc_message, opened_channel, stream_exchange

_PROMPTS = ("a red circle moving right", "a blue square moving left", "a green triangle")


class Ended(NamedTuple):
    """How one request ended.

    Attributes
    ----------
    outcome : str
        ``grpc OK``, ``refused`` (UNAVAILABLE), ``silent``, or another gRPC status.
    answers : int
        Last responses that came: one is right.
    sent_s, done_s : float
        `time.monotonic`.
    """

    outcome: str
    answers: int
    sent_s: float
    done_s: float


class Steady:
    """Users of whom each sends the next request when the last one is answered.

    Parameters
    ----------
    target : Target
    patience_s : float
    seed : int
    pause_s : float
        What a user waits for between two requests, on average.
    """

    def __init__(self, target: Target, *, patience_s: float, seed: int, pause_s: float = 0.0) -> None:
        self._target = target
        self._patience_s = patience_s
        self._rng = random.Random(f"{seed} steady")  # noqa: S311 - no secret
        self._pause_s = pause_s
        self._stopping = asyncio.Event()
        self.ended: list[Ended] = []

    def stop(self) -> None:
        """Let every user finish the request in flight."""
        self._stopping.set()

    async def run(self, *, unary: int, streams: int) -> None:
        """Let so many users send until `stop`."""
        async with asyncio.TaskGroup() as group:
            for number in range(unary + streams):
                group.create_task(self._user(is_stream=number >= unary))

    async def _user(self, *, is_stream: bool) -> None:
        async with opened_channel(self._target.grpc_url) as channel:
            while not self._stopping.is_set():
                sent_s = time.monotonic()
                values: dict[str, str | int] = {
                    "prompt": self._rng.choice(_PROMPTS),
                    "seed": self._rng.randrange(2**31),
                }
                if is_stream:
                    message = grpc_message(self._target.stream, [1], f"{sent_s}", values)
                    outcome, answers = await stream_exchange(channel, message, self._patience_s)
                else:
                    message = grpc_message(self._target.model, [1, 1], f"{sent_s}", values)
                    outcome = await grpc_exchange(channel, message, self._patience_s)
                    answers = int(outcome != SILENT)
                outcome = "refused" if outcome == "grpc UNAVAILABLE" else outcome
                self.ended.append(Ended(outcome, answers, sent_s, time.monotonic()))
                await asyncio.sleep(self._rng.expovariate(1 / self._pause_s) if self._pause_s else 0.0)


def counts(ended: Sequence[Ended]) -> Mapping[str, int]:
    """Return how many ended in each way, got no answer, got more than one, and got an error that was not to be."""
    outcomes = {
        outcome: sum(each.outcome == outcome for each in ended) for outcome in sorted({e.outcome for e in ended})
    }
    answers = [each.answers for each in ended]
    wrong = {"unanswered": answers.count(0), "answered_twice": sum(number > 1 for number in answers)}
    failed = sum(each.outcome not in ("grpc OK", "refused", SILENT) for each in ended)
    return outcomes | wrong | {"failed": failed}
