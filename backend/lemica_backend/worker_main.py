"""The process of a worker: ``python -m lemica_backend.worker_main SOCKET_FD PARENT_PID``.

It imports the modules that it is told, loads what it is told, and then does what it is told, one thing after another,
until its end of the socket is closed or its parent ends. Signals for the whole group are its parent's business.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from lemica_backend.pipe import receive, send, sendable
from lemica_backend.worker import Stepped

_PR_SET_PDEATHSIG = 1
_WITHOUT_ANSWER = ("drop", "compute")
_log = logging.getLogger(__name__)


def main() -> None:
    """Serve until the other end is closed."""
    descriptor, parent = map(int, sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew
        sys.exit(1)
    logging.basicConfig(level=logging.WARNING, format="worker %(process)d: %(name)s: %(message)s")
    try:
        _serve(Connection(descriptor))
    except (EOFError, OSError):
        os._exit(0)  # nobody is left to talk to; libraries' clean-up at exit may hang


def _serve(connection: Connection) -> None:
    worker = _load(connection)
    while worker:
        name, *arguments = receive(connection)
        _answer(connection, name, getattr(worker, name), arguments)


def _load(connection: Connection) -> Any:
    """Return a `LocalWorker`, or a `Follower` of one; None if it could not be made."""
    message = receive(connection)
    while isinstance(message, str):  # a spare process gets ready
        import_module(message)
        message = receive(connection)
    (module, function, arguments), measures = message
    try:
        worker = getattr(import_module(module), function)(*arguments, measures=measures)
    except BaseException as error:
        send(connection, (True, sendable(error)))
        return None
    send(connection, (False, worker.facts))
    return worker


def _answer(connection: Connection, name: str, call: Any, arguments: list[Any]) -> None:
    try:
        value = call(*arguments)
    except Exception as error:
        _log.warning("%s failed", name, exc_info=True)  # a traceback does not cross
        value, is_error = sendable(error), True
    else:
        is_error = False
    if isinstance(value, Stepped) and value.failures:
        value = value._replace(failures={number: _logged(error) for number, error in value.failures.items()})
    if name not in _WITHOUT_ANSWER:
        send(connection, (is_error, value))


def _logged(error: Exception) -> Exception:
    _log.warning("a request failed in a step", exc_info=error)
    return sendable(error)


if __name__ == "__main__":
    main()
