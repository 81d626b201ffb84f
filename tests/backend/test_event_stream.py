"""Progress is told in order and may be lost; the answer is not."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lemica_backend.event_stream import MAX_WAITING, EventStream
from lemica_backend.messages import Done, Told
from lemica_backend.outbox import MAX_PROGRESS, Outbox
from lemica_backend.watch import Accepted, Progress


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def progress(step):
    return Progress(step, 100, is_computed=True, eta_ms=None)


def test_events_go_out_in_order_and_the_answer_last(pool):
    sent, done = [], threading.Event()
    stream = EventStream(lambda text: sent.append(json.loads(text)), pool.submit)
    stream.tell(Accepted("fast", 1234.56789))
    for step in range(3):
        stream.tell(progress(step)._replace(preview=np.zeros((4, 6, 3), np.uint8) if step == 1 else None))
    stream.finish(lambda: (sent.append("answer"), done.set()))
    assert done.wait(30)
    assert sent[0] == {"event": "accepted", "budget": "fast", "eta_ms": 1234.568}
    assert [event["step"] for event in sent[1:-1]] == [1, 2, 3]
    assert ["preview" in event for event in sent[1:-1]] == [False, True, False]
    assert sent[-1] == "answer"


def test_slow_reader_loses_the_oldest_progress_only(pool):
    sent, reads, done = [], threading.Event(), threading.Event()

    def send(text):
        assert reads.wait(30)
        sent.append(json.loads(text))

    stream = EventStream(send, pool.submit)
    stream.tell(progress(0))  # is being sent, for long
    stream.tell(Accepted("full", None))
    for step in range(1, 100):
        stream.tell(progress(step))
    stream.finish(done.set)
    reads.set()
    assert done.wait(30)
    kept = [event["step"] for event in sent if event["event"] == "progress"]
    assert len(kept) <= MAX_WAITING + 1
    assert kept[-1] == 100
    assert "accepted" in {event["event"] for event in sent}


def test_event_that_cannot_be_sent_does_not_cost_the_answer(pool):
    done = threading.Event()

    def send(_):
        raise RuntimeError("the reader left")

    stream = EventStream(send, pool.submit)
    stream.tell(progress(0))
    stream.finish(done.set)
    assert done.wait(30)


def test_outbox_drops_progress_of_who_is_not_fetched_and_no_answer():
    outbox = Outbox()
    for step in range(1000):
        outbox.put(Told(1, progress(step)))
    outbox.put(Told(2, progress(0)))
    outbox.put(Done(1, []))
    got = [outbox.get() for _ in range(MAX_PROGRESS + 2)]
    assert [type(each) for each in got[-2:]] == [Told, Done]
    outbox.put(Told(1, progress(0)))  # there is room again
    assert isinstance(outbox.get(), Told)
    outbox.close()
    assert outbox.get() is None
