"""Python objects over a Unix socket: pickles whose arrays follow as they are, without a copy on the way out.

Both ends are this package, run by the same user, in a folder that nobody else may enter.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import struct
import threading
from typing import Any

_COUNT = struct.Struct("!I")
_SIZE = struct.Struct("!Q")
_MAX_PARTS = 1 << 16  # more is no frame of ours
_MAX_VECTORS = 512  # buffers that the kernel takes at once; 1024 is its limit


class ConnectionLostError(Exception):
    """The other end is gone."""


class Connection:
    """One end of a connection. Sending is thread-safe; one thread may receive.

    Parameters
    ----------
    link : socket.socket
        A connected stream socket; owned from now on.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._sending = threading.Lock()

    def send(self, message: object) -> None:
        """Send one object; raises `ConnectionLostError`."""
        arrays: list[pickle.PickleBuffer] = []
        body = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
        parts = [memoryview(body), *(array.raw() for array in arrays)]
        sizes = b"".join(_SIZE.pack(part.nbytes) for part in parts)
        try:
            with self._sending:
                self._send_all([memoryview(_COUNT.pack(len(parts)) + sizes), *parts])
        except OSError as error:
            raise ConnectionLostError(str(error)) from error

    def receive(self) -> Any:
        """Wait for the next object; raises `ConnectionLostError`."""
        try:
            count = _COUNT.unpack(self._read(_COUNT.size))[0]
            if not 0 < count <= _MAX_PARTS:
                raise ConnectionLostError(f"a frame of {count} parts")
            sizes = self._read(count * _SIZE.size)
            body, *arrays = [self._read(size) for (size,) in _SIZE.iter_unpack(sizes)]
        except (OSError, MemoryError) as error:
            raise ConnectionLostError(str(error)) from error
        return pickle.loads(body, buffers=arrays)  # noqa: S301 - of our own making, see above

    def close(self) -> None:
        """Let go; whoever receives, on either end, gets `ConnectionLostError`."""
        with contextlib.suppress(OSError):  # the other end was faster
            self._link.shutdown(socket.SHUT_RDWR)
        self._link.close()

    def _send_all(self, parts: list[memoryview]) -> None:
        left = [part for part in parts if part.nbytes]
        while left:
            sent = self._link.sendmsg(left[:_MAX_VECTORS])
            while left and sent >= left[0].nbytes:
                sent -= left.pop(0).nbytes
            if sent:
                left[0] = left[0][sent:]

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view, at = memoryview(data), 0
        while at < size:
            got = self._link.recv_into(view[at:])
            if not got:
                raise ConnectionLostError("the other end is gone")
            at += got
        return data
