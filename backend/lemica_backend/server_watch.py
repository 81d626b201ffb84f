"""What becomes of the tritonserver that an engine serves: whether it is gone, or on its way out.

A server that is told to end closes its listening sockets at once and then waits for what it has accepted; it tells its
Python processes nothing until that is answered. (Asking it through its Python API in that state can hang or crash
it: seen with 24.10.)
"""

from __future__ import annotations

import logging
import math
import os
import select
import time
from pathlib import Path

import psutil

from lemica_backend.engine_place import Server

_OPENING_S = 5.0  # in which a server opens its ports, on a busy machine
_log = logging.getLogger(__name__)


class ServerWatch:
    """Watches one server.

    Parameters
    ----------
    server : Server
    """

    def __init__(self, server: Server) -> None:
        self._process = psutil.Process(server.pid)
        self._descriptor = os.pidfd_open(server.pid)
        self._was_there = server.is_running()
        self._listeners: dict[Path, str] = {}  # the server's descriptors, and what they are of
        self._look_until_s = math.inf  # none was found yet

    def is_gone(self) -> bool:
        """Whether the process ended, in whatever way."""
        return not self._was_there or bool(select.select([self._descriptor], [], [], 0)[0])

    def is_ending(self) -> bool:
        """Whether it closed a port that it was seen to open; False if that cannot be seen.

        Finding its ports takes 10 ms, which a small model's steps feel if it is done all the time, and so ends soon
        after the first was found; looking whether they are still open takes microseconds.
        """
        if time.monotonic() <= self._look_until_s:
            self._find_listeners()
        return any(_points_at(link) != socket for link, socket in self._listeners.items())

    def _find_listeners(self) -> None:
        """Add those that are new: a server opens one port after the other, and may close any of them first."""
        try:
            connections = self._process.net_connections(kind="tcp")
        except psutil.NoSuchProcess:  # `is_gone` says so
            return
        except psutil.Error:
            _log.warning("cannot see where the server listens: requests may be cut off at its end", exc_info=True)
            self._look_until_s = -math.inf
            return
        folder = Path(f"/proc/{self._process.pid}/fd")
        links = [folder / str(each.fd) for each in connections if each.status == psutil.CONN_LISTEN]
        self._listeners |= {
            link: socket for link in links if (socket := _points_at(link)) and link not in self._listeners
        }
        if self._listeners:
            self._look_until_s = min(self._look_until_s, time.monotonic() + _OPENING_S)


def _points_at(link: Path) -> str | None:
    try:
        return str(link.readlink())
    except OSError:  # closed, or the process is gone
        return None
