"""The line in which accepted requests wait for their first step."""

from __future__ import annotations

import heapq
import itertools
import threading

from lemica_backend.errors import EngineUnavailableError
from lemica_backend.session import Session


class WaitingLine:
    """A bounded queue: higher priority first, then first come, first served. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[int, int, Session]] = []
        self._arrivals = itertools.count()
        self._changed = threading.Condition()
        self.is_closed = False

    def put(self, session: Session) -> None:
        """Add a request; raises `EngineUnavailableError` when the line is full or closed."""
        with self._changed:
            if self.is_closed:
                raise EngineUnavailableError("the server is shutting this model down; send the request again")
            if len(self._heap) >= self._limit:
                raise EngineUnavailableError(f"{self._limit} requests are waiting, the limit; try again later")
            heapq.heappush(self._heap, (-session.planned.priority, next(self._arrivals), session))
            self._changed.notify()

    def get(self, *, block: bool) -> Session | None:
        """Return the next request; with `block`, wait for one or for `close`. None: there is none."""
        with self._changed:
            self._changed.wait_for(lambda: not block or self._heap or self.is_closed)
            return heapq.heappop(self._heap)[2] if self._heap and not self.is_closed else None

    def drop_unwanted(self) -> None:
        """Answer cancelled and overdue requests where they wait, so that they free their place at once."""
        with self._changed:
            waiting = list(self._heap)
        gone = {session for *_, session in waiting if session.drop_if_unwanted()}
        if gone:
            with self._changed:
                self._heap = [entry for entry in self._heap if entry[2] not in gone]
                heapq.heapify(self._heap)

    def close(self) -> None:
        """Take nothing more, and wake whoever waits."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()

    def drain(self) -> list[Session]:
        """Return and forget everything that still waits."""
        with self._changed:
            sessions = [entry[2] for entry in sorted(self._heap, key=lambda entry: entry[:2])]
            self._heap.clear()
            return sessions
