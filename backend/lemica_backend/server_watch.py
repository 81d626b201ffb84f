"""What becomes of the tritonserver that an engine serves: whether it is gone, or on its way out.

A server that is told to end closes its listening sockets at once and then waits for what it has accepted; it tells its
Python processes nothing until that is answered. (Asking it through its Python API in that state can hang or crash
it: seen with 24.10.)
"""

from __future__ import annotations

import logging
import os
import select

import psutil

from lemica_backend.engine_place import Server

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
        self._seen: set[tuple[object, ...]] = set()
        self._is_hidden = False

    def is_gone(self) -> bool:
        """Whether the process ended, in whatever way."""
        return not self._was_there or bool(select.select([self._descriptor], [], [], 0)[0])

    @property
    def is_known(self) -> bool:
        """Whether `is_ending` knows where the server listens, or that it may not see that."""
        return bool(self._seen) or self._is_hidden

    def is_ending(self) -> bool:
        """Whether it stopped listening where `is_ending` saw it listen before; False where that cannot be found out."""
        try:
            connections = self._process.net_connections(kind="tcp")
        except psutil.Error:
            if not self._is_hidden:
                _log.warning("cannot see where the server listens: requests may be cut off at its end", exc_info=True)
            self._is_hidden = True
            return False
        listening = {tuple[object, ...](each.laddr) for each in connections if each.status == psutil.CONN_LISTEN}
        self._seen |= listening
        return not listening >= self._seen
