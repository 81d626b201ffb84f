"""Answers that are sent exactly once.

Triton never forgives here: a second answer or a missing one leaves a client waiting for ever, and an
error raised after an answer was sent takes the whole server down.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Once(Generic[T]):
    """An answer still owed. Thread-safe; raises nothing.

    Parameters
    ----------
    send : callable
        Sends an answer; called at most once with success.
    last_word : callable
        Makes the answer to give if no better one can be: `send` failed, or the owner gave up or was lost.
    """

    def __init__(self, send: Callable[[T], None], *, last_word: Callable[[], T]) -> None:
        self._send = send
        self._last_word = last_word
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the answer was sent."""
        return self._is_closed

    def send(self, answer: T) -> bool:
        """Send `answer`, unless one was sent before; True if this call sent one."""
        if not self._claim():
            return False
        try:
            self._send(answer)
        except Exception:
            _log.exception("an answer could not be sent; an error is sent in its place")
            self._give_up()
        return True

    def close(self) -> None:
        """Send the last word, unless an answer was sent."""
        if self._claim():
            self._give_up()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be on its way down
            self.close()

    def _claim(self) -> bool:
        with self._lock:
            claimed, self._is_closed = not self._is_closed, True
        return claimed

    def _give_up(self) -> None:
        try:
            self._send(self._last_word())
        except Exception:
            _log.exception("not even an error could be sent")


class OpenAnswers(Generic[T]):
    """Every answer still owed, so that a closing owner can give the last word to each.

    It does not keep them alive: one that is lost gives its last word at once.
    """

    def __init__(self) -> None:
        self._open: weakref.WeakSet[Once[T]] = weakref.WeakSet()

    def open(self, send: Callable[[T], None], *, last_word: Callable[[], T]) -> Once[T]:
        """Return a new answer to send."""
        once = Once(send, last_word=last_word)
        self._open.add(once)
        return once

    def close(self) -> None:
        """Give the last word wherever nothing was sent."""
        for once in tuple(self._open):
            once.close()
