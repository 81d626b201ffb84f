"""A worker in a process of its own, so that its end is nobody else's; no torch on this side."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lemica_backend.pipe import receive, send
from lemica_backend.planned import PlannedRequest
from lemica_backend.worker import Decoded, Facts, Started, Stepped, WorkerLostError

_ENDING_S = 5.0


class Recipe(NamedTuple):
    """How the child makes its `LocalWorker`: a function by its name, for what it imports is not for this process.

    It gets the arguments and ``measures=``.
    """

    module: str
    function: str
    arguments: tuple[Any, ...]


class ProcessSource:
    """Starts a process for each worker, one after another.

    Parameters
    ----------
    recipe : Recipe
    device : str
    timeout_s : float
        Seconds in which a worker has to do one thing; loading may take any time.
    keeps_spare : bool
        Whether to keep a process that has imported what the recipe needs, and loaded nothing, for the next worker.
    """

    def __init__(self, recipe: Recipe, device: str, timeout_s: float, *, keeps_spare: bool = False) -> None:
        self.device = device
        self._recipe = recipe
        self._timeout_s = timeout_s
        self._keeps_spare = keeps_spare
        self._process: subprocess.Popen[bytes] | None = None
        self._spare: Child | None = None

    @property
    def pid(self) -> int | None:
        """The process of the current worker, or of the last one."""
        return self._process.pid if self._process else None

    @property
    def spare_pid(self) -> int | None:
        """The process that is kept for the next worker."""
        return self._spare.process.pid if self._spare else None

    def open(self, on_end: Callable[[], None], *, measures: bool) -> ProcessWorker:
        """Start a process and let it load the model; see `lemica_backend.worker.WorkerSource`."""
        child = self._take_spare() or start_child()
        self._process = child.process
        worker = ProcessWorker(*child, self._timeout_s)
        threading.Thread(target=_tell_end, args=[child.process, on_end], daemon=True).start()
        worker.load(self._recipe, measures=measures)
        if self._keeps_spare:  # only now, so that it slows down no load
            self._spare = start_child()
            with contextlib.suppress(OSError):  # it died at once; the next worker starts from nothing
                send(self._spare.connection, self._recipe.module)
        return worker

    def kill(self) -> None:
        """End the current process."""
        if self._process:
            self._process.kill()

    def close(self) -> None:
        """End the spare process."""
        if spare := self._take_spare():
            spare.process.kill()
            spare.process.wait()
            spare.connection.close()

    def _take_spare(self) -> Child | None:
        """Return the spare process, if it still runs."""
        spare, self._spare = self._spare, None
        return spare if spare and spare.process.poll() is None else None


class Child(NamedTuple):
    """A process that waits to be told what to load, and this one's end of the socket."""

    process: subprocess.Popen[bytes]
    connection: Connection


def start_child() -> Child:
    """Start a child; it ends when the thread that starts it does."""
    ours, theirs = socket.socketpair()
    with theirs:
        end = theirs.fileno()
        command = [sys.executable, "-m", "lemica_backend.worker_main", str(end), str(os.getpid())]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = subprocess.Popen(command, pass_fds=[end], env=environment, stdin=subprocess.DEVNULL)
    return Child(process, Connection(ours.detach()))


def _tell_end(process: subprocess.Popen[bytes], on_end: Callable[[], None]) -> None:
    process.wait()
    on_end()


class ProcessWorker:
    """See `lemica_backend.worker.Worker`; every call waits for its answer, but for those that have none.

    Parameters
    ----------
    process : Popen
    connection : Connection
        To the child's end, where `lemica_backend.worker_main` listens.
    timeout_s : float
    """

    facts: Facts

    def __init__(self, process: subprocess.Popen[bytes], connection: Connection, timeout_s: float) -> None:
        self._process = process
        self._connection = connection
        self._timeout_s = timeout_s

    def load(self, recipe: Recipe, *, measures: bool) -> None:
        """Wait until the model is loaded; raises what `lemica_backend.worker.WorkerSource.open` raises."""
        self._send((recipe, measures))
        try:
            self.facts = self._receive(None)
        except BaseException:
            self.close()
            raise

    @property
    def is_lost(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def start(self, number: int, planned: PlannedRequest) -> Started:
        """Encode the text and draw the noise."""
        return cast(Started, self._ask("start", number, _slim(planned)))

    def step(self, numbers: Sequence[int], most: int = 1) -> Stepped:
        """Take so many denoising steps of these requests, fewer where one fails."""
        return cast(Stepped, self._ask("step", list(numbers), most))

    def replan(self, number: int, planned: PlannedRequest) -> None:
        """Let a request go on as this one says."""
        self._ask("replan", number, _slim(planned))

    def decode(self, number: int) -> Decoded:
        """Decode the latents of a request that has taken all its steps."""
        return cast(Decoded, self._ask("decode", number))

    def preview(self, number: int) -> NDArray[np.uint8]:
        """Return the middle frame of the latents as they are."""
        return cast(NDArray[np.uint8], self._ask("preview", number))

    def drop(self, number: int) -> None:
        """Forget a request."""
        with contextlib.suppress(WorkerLostError):  # then all that it held is gone
            self._send(("drop", number))  # without an answer, so that nobody waits for it

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        try:
            self._process.wait(_ENDING_S)  # it ends by itself when its pipe does
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, name: str, *arguments: object) -> Any:
        self._send((name, *arguments))
        return self._receive(self._timeout_s)

    def _send(self, message: object) -> None:
        try:
            send(self._connection, message)
        except OSError:
            raise self._lost() from None

    def _receive(self, timeout_s: float | None) -> Any:
        try:
            if not self._connection.poll(timeout_s):
                self._process.kill()
                raise WorkerLostError(f"the worker did not answer within {timeout_s:g} s and was ended")
            is_error, value = receive(self._connection)
        except (EOFError, OSError):
            raise self._lost() from None
        if is_error:
            raise value
        return value

    def _lost(self) -> WorkerLostError:
        """Return how the process ended, as an error; where it only closed its end, it is ended."""
        try:
            code = self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return WorkerLostError(f"the worker that computed the request ended {how}")


def _slim(planned: PlannedRequest) -> PlannedRequest:
    """Return the request without what only the engine looks at; of its range, nothing but operators matters there."""
    return dataclasses.replace(planned, courses=planned.courses[-1:])
