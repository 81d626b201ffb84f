"""Several rows, one reply."""

import numpy as np
import pytest

from lemica_backend.errors import EngineUnavailableError, GenerationError, InvalidRequestError, RequestCancelledError
from lemica_backend.row_group import RowGroup
from lemica_backend.types import GenerationRequest, GenerationResult


class HeldEngine:
    """Takes requests and keeps them until the test decides, or refuses all."""

    def __init__(self, refusal=None):
        self.refusal = refusal
        self.on_done, self.is_cancelled = [], []

    def submit_all(self, submissions):
        if self.refusal:
            raise self.refusal
        self.on_done = [each.caller.on_done for each in submissions]
        self.is_cancelled = [each.caller.is_cancelled for each in submissions]
        self.answered = [each.caller.answered for each in submissions]


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
    assert str(engine.answered[2]()) == "row 1: NaN"
    engine.on_done[2](RequestCancelledError("cancelled"))
    assert len(replies) == 1


def test_error_of_a_lone_row_stays_as_it_is(replies):
    engine, error = HeldEngine(), GenerationError("NaN")
    submit(engine, "a", replies)
    engine.on_done[0](error)
    assert replies == [error]


@pytest.mark.parametrize("refusal", [InvalidRequestError("row 1: bad"), EngineUnavailableError("full")])
def test_what_the_engine_refuses_is_the_reply_as_it_is(replies, refusal):
    submit(HeldEngine(refusal), "abc", replies)
    assert replies == [refusal]


def test_a_named_row_keeps_the_cause_for_the_log(replies):
    engine, fault, cause = HeldEngine(), GenerationError("failed"), RuntimeError("why")
    fault.__cause__ = cause
    submit(engine, "ab", replies)
    engine.on_done[1](fault)
    assert replies[0].__cause__ is cause


def test_the_client_is_asked_until_the_reply_and_never_after(replies):
    asked = []
    engine = HeldEngine()
    submit(engine, "a", replies, is_cancelled=lambda: bool(asked.append(1)) or len(asked) > 1)
    assert [engine.is_cancelled[0]() for _ in range(2)] == [False, True]
    engine.on_done[0](result(1))
    assert engine.is_cancelled[0]()
    assert len(asked) == 2
