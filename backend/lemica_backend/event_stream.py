"""The events of one streamed request, in order, sent by whoever has time; knows nothing of Triton."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from lemica_backend.png import encode_png
from lemica_backend.watch import Accepted, Progress

MAX_WAITING = 16  # events of progress that nobody fetched yet; older ones are dropped
_log = logging.getLogger(__name__)


class EventStream:
    """Sends events, and then the answer. A slow reader loses progress, never the answer, and holds up nobody.

    Parameters
    ----------
    send : callable
        Sends one event, a JSON text.
    run : callable
        Lets a function run in another thread, such as `concurrent.futures.Executor.submit`.
    """

    def __init__(self, send: Callable[[bytes], None], run: Callable[[Callable[[], None]], object]) -> None:
        self._send = send
        self._run = run
        self._waiting: deque[Accepted | Progress] = deque()
        self._finish: Callable[[], None] | None = None
        self._is_running = False
        self._lock = threading.Lock()

    def tell(self, event: Accepted | Progress) -> None:
        """Send an event soon."""
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                self._waiting.remove(next(each for each in self._waiting if isinstance(each, Progress)))
            self._waiting.append(event)
        self._wake()

    def finish(self, answer: Callable[[], None]) -> None:
        """Call `answer`, which sends the last response, after the events that wait."""
        with self._lock:
            self._finish = answer
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            if self._is_running:
                return
            self._is_running = True
        self._run(self._work)

    def _work(self) -> None:
        while (do := self._next()) is not None:
            try:
                do()
            except Exception:  # a reader who left; the answer finds out
                _log.debug("an event could not be sent", exc_info=True)

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            if self._waiting:
                event = self._waiting.popleft()
                return lambda: self._send(json.dumps(as_json(event)).encode())
            do, self._finish = self._finish, None
            self._is_running = do is not None
            return do


def as_json(event: Accepted | Progress) -> dict[str, Any]:
    """Return an event as clients get it."""
    if isinstance(event, Accepted):
        return {"event": "accepted", "budget": event.budget, "eta_ms": _rounded(event.eta_ms)}
    said: dict[str, Any] = {
        "event": "progress",
        "step": event.step + 1,
        "num_steps": event.num_steps,
        "computed": event.is_computed,
        "eta_ms": _rounded(event.eta_ms),
    }
    if event.preview is not None:
        said["preview"] = base64.b64encode(encode_png(event.preview)).decode()
    return said


def _rounded(value_ms: float | None) -> float | None:
    return None if value_ms is None else round(value_ms, 3)
