"""Python values over a pipe between two processes of this package; large arrays travel beside the pickle, uncopied."""

from __future__ import annotations

import pickle
from multiprocessing.connection import Connection
from typing import Any


def send(connection: Connection, value: object) -> None:
    """Send a picklable value."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    connection.send_bytes(len(buffers).to_bytes(4, "little") + head)
    for buffer in buffers:
        connection.send_bytes(buffer.raw())


def receive(connection: Connection) -> Any:
    """Return the next value; both ends are of the same program, so the pickle is trusted.

    Raises
    ------
    EOFError, OSError
        If the other end is gone.
    """
    head = connection.recv_bytes()
    buffers = [bytearray(connection.recv_bytes()) for _ in range(int.from_bytes(head[:4], "little"))]
    return pickle.loads(memoryview(head)[4:], buffers=buffers)  # noqa: S301


def sendable(error: BaseException) -> Exception:
    """Return an error as one that survives the way, with what its traceback says as a note."""
    if not isinstance(error, Exception):
        return RuntimeError(f"{type(error).__name__}: {error}")
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:  # an error's own constructor may take anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return copy if type(copy) is type(error) else RuntimeError(f"{type(error).__name__}: {error}")
