"""Objects over a socket."""

import socket
import threading

import numpy as np
import pytest

from lemica_backend.messages import Done
from lemica_backend.types import GenerationResult
from lemica_backend.wire import Connection, ConnectionLostError


@pytest.fixture
def ends():
    ends = [Connection(end) for end in socket.socketpair()]
    yield ends
    for end in ends:
        end.close()


def test_arrays_of_any_size_arrive_as_they_were(ends):
    results = [
        GenerationResult(np.random.default_rng(0).integers(0, 256, (frames, 300, 300, 3), np.uint8), np.ones(2), {})
        for frames in (1, 40, 0)
    ]
    sender = threading.Thread(target=ends[0].send, args=(Done(3, results),))
    sender.start()
    number, arrived = ends[1].receive()
    sender.join()
    assert number == 3
    for sent, got in zip(results, arrived, strict=True):
        assert np.array_equal(sent.frames, got.frames)
        assert got.frames.shape == sent.frames.shape
        assert got.frames.flags.writeable


def test_more_arrays_than_the_kernel_takes_at_once(ends):
    arrays = [np.full(3, number) for number in range(2000)]
    sender = threading.Thread(target=ends[0].send, args=(arrays,))
    sender.start()
    assert [array[0] for array in ends[1].receive()] == list(range(2000))
    sender.join()


def test_messages_of_several_threads_do_not_mix(ends):
    senders = [
        threading.Thread(target=lambda n=number: [ends[0].send((n, np.full(1000, n))) for _ in range(50)])
        for number in range(4)
    ]
    for sender in senders:
        sender.start()
    for _ in range(200):
        number, array = ends[1].receive()
        assert (array == number).all()
    for sender in senders:
        sender.join()


def test_end_is_told_to_both_sides(ends):
    receiver_failed = threading.Event()

    def receive():
        with pytest.raises(ConnectionLostError):
            ends[1].receive()
        receiver_failed.set()

    receiver = threading.Thread(target=receive)
    receiver.start()
    ends[0].close()
    receiver.join(30)
    assert receiver_failed.is_set()
    with pytest.raises(ConnectionLostError):
        ends[0].send("late")


@pytest.mark.parametrize("data", [b"\xff" * 64, b"\x00" * 64, b"\x00\x00"], ids=["many parts", "no parts", "cut"])
def test_what_is_no_frame_ends_the_connection(data):
    ours, theirs = socket.socketpair()
    theirs.sendall(data)
    theirs.close()
    with pytest.raises(ConnectionLostError):
        Connection(ours).receive()
