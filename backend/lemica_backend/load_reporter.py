"""Tell a watcher what the engine holds: after ticks, and while nothing ticks, too."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from lemica_backend.watch import EngineLoad, Watcher, tell

_log = logging.getLogger(__name__)


class LoadReporter:
    """Reports from a thread of its own, so that an engine that hangs in a tick is still seen to hold requests.

    Parameters
    ----------
    load : callable
        What is held now; called from this thread and from the one that calls `report_if_due`.
    watcher : Watcher
    period_s : float
        Seconds between two reports if nothing ticks.
    shortest_s : float
        Seconds that must have passed since the last report for another one after a tick.
    """

    def __init__(
        self, load: Callable[[], EngineLoad], watcher: Watcher, *, period_s: float = 1.0, shortest_s: float = 0.25
    ) -> None:
        self._load = load
        self._watcher = watcher
        self._period_s = period_s
        self._shortest_s = shortest_s
        self._reported_s = 0.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="lemica-load", daemon=True)
        self._thread.start()

    def report_if_due(self) -> None:
        """Report, unless that was done a moment ago."""
        if time.perf_counter() - self._reported_s >= self._shortest_s:
            self._report()

    def close(self) -> None:
        """Report for the last time."""
        self._closed.set()
        self._thread.join()

    def _loop(self) -> None:
        is_closed = False
        while not is_closed:
            is_closed = self._closed.wait(self._period_s)
            self._report()

    def _report(self) -> None:
        self._reported_s = time.perf_counter()
        try:
            load = self._load()
        except Exception:  # the next one comes in a second
            _log.exception("what the engine holds could not be found out")
        else:
            tell(self._watcher, load)
