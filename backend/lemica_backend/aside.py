"""Passes events on to watchers from a thread of its own, so that the engine never waits for a server's metrics."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from lemica_backend.watch import Event, Watcher, deliver

_log = logging.getLogger(__name__)


def _nothing() -> None:
    """Do nothing."""


class Aside:
    """A watcher before other ones: takes every event at once, and tells them in the same order, one after the other.

    What a watcher raises is logged once for each kind of event: ticks come many a second.

    Parameters
    ----------
    watchers : Watcher
    on_close : callable
        Is called when all is told.
    """

    def __init__(self, *watchers: Watcher, on_close: Callable[[], None] = _nothing) -> None:
        self._on_close = on_close
        self._watchers = watchers
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._failed: set[tuple[type, type]] = set()
        self._thread = threading.Thread(target=self._loop, name="lemica-aside", daemon=True)
        self._thread.start()

    def take(self, event: Event) -> None:
        """Keep an event for the watchers."""
        self._events.put(event)

    refused = started = ticked = answered = loaded = drifted = worker_restarted = take

    def close(self) -> None:
        """Tell what is still kept, then end; what comes later is lost."""
        self._events.put(None)
        self._thread.join()
        self._on_close()

    def _loop(self) -> None:
        while (event := self._events.get()) is not None:
            for watcher in self._watchers:
                self._tell(watcher, event)

    def _tell(self, watcher: Watcher, event: Event) -> None:
        try:
            deliver(watcher, event)
        except Exception:  # the other events, and watchers, are not to suffer
            failure = type(watcher), type(event)
            if failure not in self._failed:
                _log.exception("%s cannot take a %s; said once", *(kind.__name__ for kind in failure))
            self._failed.add(failure)
