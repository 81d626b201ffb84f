"""Keeps the worker of one device alive, and the lane running on it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from lemica_backend.errors import EngineUnavailableError
from lemica_backend.lane import Lane
from lemica_backend.waiting import WaitingLine
from lemica_backend.watch import Watcher, WorkerRestarted, tell
from lemica_backend.worker import Facts, Worker, WorkerLostError, WorkerSource

TRIES = 3  # in a row, after which those who wait are answered
DELAYS_S = (0.0, 0.5, 2.0)  # before each of them
SLOW_S = 30.0  # before each later one
_CLOSING_S = 10.0  # for the tick that runs
_LOOK_S = 0.1
_OVERDUE = 0.1  # of the time that it has taken already is what a load that should be done is given still
_SHUTTING = "the server is shutting this model down; send the request again"
_log = logging.getLogger(__name__)


class WorkerState(NamedTuple):
    """How a worker is.

    Attributes
    ----------
    device : str
    is_serving : bool
    restarts : int
        Workers that took the place of lost ones.
    down : str or None
        Why there has been no worker for several tries in a row; None while there is one, or one is expected soon.
    """

    device: str
    is_serving: bool
    restarts: int
    down: str | None


class Supervisor:
    """Opens a worker, lets the lane serve on it, and opens the next one when it is lost.

    All of a worker's life is spent in one thread: the kernel ends a worker when the thread that started it ends.

    Parameters
    ----------
    source : WorkerSource
    line : WaitingLine
    on_down : callable
        Is called with the reason when the worker could not be opened several times in a row.
    watcher : Watcher
        Is told of every worker that takes the place of a lost one.
    """

    def __init__(
        self, source: WorkerSource, line: WaitingLine, on_down: Callable[[str], None], watcher: Watcher
    ) -> None:
        self.source = source
        self.opened: Future[Facts] = Future()
        self.restarts = 0
        self.down: str | None = None  # why there has been no worker for long
        self.has_worker = False
        self.load_s = 0.0  # that the last worker took to load
        self._lost_at_s = 0.0
        self._line = line
        self._on_down = on_down
        self._watcher = watcher
        self._reason = ""
        self._begun: Future[Lane] = Future()
        self._fails = 0
        self._thread = threading.Thread(target=self._run, name=f"lemica-{source.device}", daemon=True)
        self._thread.start()

    @property
    def state(self) -> WorkerState:
        """How the worker is now."""
        return WorkerState(self.source.device, self.has_worker, self.restarts, self.down)

    @property
    def absent_s(self) -> float:
        """Seconds until there is a worker again, as the last load took; one that is overdue takes a while longer."""
        since_s = time.monotonic() - self._lost_at_s
        return 0.0 if self.has_worker else max(self.load_s - since_s, _OVERDUE * since_s)

    @property
    def lane(self) -> Lane | None:
        """The lane, from `begin` on."""
        return self._begun.result() if self._begun.done() and not self._begun.cancelled() else None

    def begin(self, lane: Lane) -> None:
        """Let the lane serve, once `opened` has its facts."""
        self.has_worker = True  # at once, so that no other lane takes this one's part
        self._begun.set_result(lane)

    def close(self) -> None:
        """Wait for the thread. The line is closed already; a tick gets some seconds to end, a load gets none."""
        self._begun.cancel()
        kill_at = time.monotonic() + _CLOSING_S
        while self._thread.is_alive():
            if not self.has_worker or time.monotonic() > kill_at:
                self.source.kill()
            self._thread.join(_LOOK_S)

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self.source.close()

    def _work(self) -> None:
        try:
            worker: Worker | None = self._open(measures=True)
        except BaseException as error:
            self.opened.set_exception(error)
            return
        assert worker
        self.opened.set_result(worker.facts)
        try:
            lane = self._begun.result()
        except BaseException:  # closed before it began: another device did not load
            worker.close()
            return
        while worker:
            self._serve(lane, worker)
            worker = self._open_again()

    def _open(self, *, measures: bool) -> Worker:
        began_s = time.monotonic()
        worker = self.source.open(self._line.wake, measures=measures)
        self.load_s = time.monotonic() - began_s
        return worker

    def _serve(self, lane: Lane, worker: Worker) -> None:
        """Serve until the worker is lost or the line closed; nothing is active any more after that."""
        ticks, reason = lane.ticks, "the process that computes on this device ended"
        self.has_worker = True
        try:
            lane.serve(worker)
        except WorkerLostError as error:
            reason = str(error)
        except BaseException as error:  # a bug of the engine: nobody may wait for an answer that never comes
            _log.exception("the engine failed; it goes on with a new worker")
            reason = f"the engine failed: {type(error).__name__}"
        self._lost_at_s, self.has_worker, self._reason = time.monotonic(), False, reason
        is_closed = self._line.is_closed
        if not is_closed:
            _log.error("the worker of %s is lost: %s", self.source.device, reason)
        answer = EngineUnavailableError(_SHUTTING if is_closed else f"{reason}; send the request again")
        lane.give_up(answer, is_last=is_closed)
        worker.close()
        self._fails = 0 if lane.ticks > ticks else self._fails + 1

    def _open_again(self) -> Worker | None:
        """Return the next worker, after as many tries as it takes; None if the line is closed."""
        while not self._line.wait_closed(self._delay_s()):
            try:
                worker = self._open(measures=False)
            except Exception as error:  # whatever it is, the next try may succeed
                self._failed(error)
            else:
                self.restarts += 1
                tell(self._watcher, WorkerRestarted(self.source.device, self._reason))
                self.down = None
                return worker
        return None

    def _delay_s(self) -> float:
        return DELAYS_S[self._fails] if self._fails < len(DELAYS_S) else SLOW_S

    def _failed(self, error: Exception) -> None:
        self._fails += 1
        if self._line.is_closed:
            return
        _log.error("the worker of %s cannot be started, try %d: %s", self.source.device, self._fails, error)
        if self._fails >= TRIES:
            self.down = f"the model cannot be loaded again: {error}"
            self._on_down(self.down)
