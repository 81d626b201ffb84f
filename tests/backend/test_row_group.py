"""Several rows, one reply."""

import numpy as np
import pytest

from lemica_backend.errors import EngineUnavailableError, GenerationError, InvalidRequestError, RequestCancelledError
from lemica_backend.row_group import RowGroup
from lemica_backend.types import GenerationRequest, GenerationResult


class HeldEngine:
    """Takes requests and keeps them until the test decides; refuses what it is told to."""

    def __init__(self, refused=()):
        self.refused = dict(refused)
        self.on_done, self.is_cancelled = [], []

    def submit(self, request, *, on_done, is_cancelled):
        if request.prompt in self.refused:
            raise self.refused[request.prompt]
        self.on_done.append(on_done)
        self.is_cancelled.append(is_cancelled)


def result(value):
    return GenerationResult(np.full((1, 2, 2, 3), value, np.uint8), np.zeros((1, 1, 1, 1), np.float32))


@pytest.fixture
def replies():
    return []


def submit(engine, prompts, replies, is_cancelled=lambda: False):
    group = RowGroup(len(prompts), reply=replies.append, is_cancelled=is_cancelled)
    group.submit(engine, [GenerationRequest(prompt) for prompt in prompts])


def test_replies_when_the_last_row_is_done_in_the_order_of_rows(replies):
    engine, results = HeldEngine(), [result(value) for value in range(3)]
    submit(engine, "abc", replies)
    for row in (2, 0, 1):
        assert replies == []
        engine.on_done[row](results[row])
    assert replies == [results]


def test_first_error_names_its_row_and_cancels_the_others(replies):
    engine = HeldEngine()
    submit(engine, "abc", replies)
    engine.on_done[0](result(0))
    engine.on_done[1](GenerationError("NaN"))
    assert [(type(error), str(error)) for error in replies] == [(GenerationError, "row 1: NaN")]
    assert engine.is_cancelled[2]()
    engine.on_done[2](RequestCancelledError("cancelled"))
    assert len(replies) == 1


def test_error_of_a_lone_row_stays_as_it_is(replies):
    engine, error = HeldEngine(), GenerationError("NaN")
    submit(engine, "a", replies)
    engine.on_done[0](error)
    assert replies == [error]


def test_refused_row_cancels_those_before_it_and_spares_the_engine_the_rest(replies):
    engine = HeldEngine(refused={"b": InvalidRequestError("bad")})
    submit(engine, "abc", replies)
    assert [(type(error), str(error)) for error in replies] == [(InvalidRequestError, "row 1: bad")]
    assert [cancelled() for cancelled in engine.is_cancelled] == [True]


def test_full_queue_is_passed_on(replies):
    submit(HeldEngine(refused={"a": EngineUnavailableError("full")}), "a", replies)
    assert isinstance(replies[0], EngineUnavailableError)


def test_the_client_is_asked_until_the_reply_and_never_after(replies):
    asked = []
    engine = HeldEngine()
    submit(engine, "a", replies, is_cancelled=lambda: bool(asked.append(1)) or len(asked) > 1)
    assert [engine.is_cancelled[0]() for _ in range(2)] == [False, True]
    engine.on_done[0](result(1))
    assert engine.is_cancelled[0]()
    assert len(asked) == 2
