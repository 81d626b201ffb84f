"""What waits to be sent to a front, so that nobody who sends waits for it."""

from __future__ import annotations

import threading
from collections import Counter, deque

from lemica_backend.messages import Told, Watched

MAX_PROGRESS = 32  # of one request
MAX_WATCHED = 1000
_WATCHED = -1


class Outbox:
    """A queue that drops progress, and what watchers hear of, if nobody fetches it; never an answer. Thread-safe."""

    def __init__(self) -> None:
        self._waiting: deque[object] = deque()
        self._counts: Counter[int] = Counter()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(self, *messages: object) -> None:
        """Add messages, or drop them."""
        with self._changed:
            for message in messages:
                self._put(message)
            self._changed.notify()

    def _put(self, message: object) -> None:
        topic, limit = _topic(message)
        if self._is_closed or (topic is not None and self._counts[topic] >= limit):
            return
        if topic is not None:
            self._counts[topic] += 1
        self._waiting.append(message)

    def get(self) -> object | None:
        """Wait for the next message; None once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._waiting:
                return None
            message = self._waiting.popleft()
            topic, _ = _topic(message)
            if topic is not None:
                self._counts[topic] -= 1
                self._counts += Counter()  # forgets zeros
            return message

    def close(self) -> None:
        """Take nothing more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


def _topic(message: object) -> tuple[int | None, int]:
    """Return what a message belongs to if it may be dropped, and how many of that may wait."""
    if isinstance(message, Told):
        return message.number, MAX_PROGRESS
    return (_WATCHED, MAX_WATCHED) if isinstance(message, Watched) else (None, 0)
