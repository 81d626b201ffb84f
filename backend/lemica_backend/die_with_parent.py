"""Run a command that is sent SIGTERM when the process that started it dies, even by SIGKILL.

``python die_with_parent.py PARENT_PID COMMAND [ARGUMENT]...`` replaces itself with the command. A
script of its own, since what a child runs between fork and exec may deadlock in a program with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel for the signal, then become the command."""
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the kernel knew
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - the command comes from triton_server.py


if __name__ == "__main__":
    main()
