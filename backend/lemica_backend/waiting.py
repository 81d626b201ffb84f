"""The line in which accepted requests wait for their first step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from lemica_backend.caller import never
from lemica_backend.errors import EngineUnavailableError, InvalidRequestError, LemicaError
from lemica_backend.session import Session


class WaitingLine:
    """A bounded line of requests in the order of their arrival; the scheduler says who starts. Thread-safe.

    Parameters
    ----------
    limit : int
        Requests that may wait.
    cache_limit_bytes : int or None
        What the step caches of all who wait may come to need together; whoever comes to an empty line passes.
    """

    def __init__(self, limit: int, cache_limit_bytes: int | None = None) -> None:
        self._limit = limit
        self._cache_limit_bytes = cache_limit_bytes
        self._sessions: tuple[Session, ...] = ()
        self._changed = threading.Condition()
        self.is_closed = False

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Everyone who waits now."""
        return self._sessions

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits, and somebody may still come."""
        return not self._sessions and not self.is_closed

    def require_room(self, count: int) -> None:
        """Refuse so many requests at once if there is no room for all of them.

        Raises
        ------
        InvalidRequestError
            If there are more of them than may ever wait.
        EngineUnavailableError
            If the line is too full now, or closed.
        """
        if self.is_closed:
            raise EngineUnavailableError("the server is shutting this model down; send the request again")
        if count > self._limit:
            raise InvalidRequestError(f"{count} rows are more than may wait here, {self._limit}: send fewer at once")
        waiting = len(self._sessions)
        if waiting + count > self._limit:
            needed = f"; {count} more are too many" if count > 1 else ""
            raise EngineUnavailableError(
                f"{waiting} requests are waiting, the limit is {self._limit}{needed}: try again later",
                reason="queue_full",
            )

    def require_cache_room(self, cache_bytes: int) -> None:
        """Refuse requests whose step caches would have to wait for too much memory before them.

        Raises
        ------
        EngineUnavailableError
        """
        limit, waiting = self._cache_limit_bytes, sum(session.cache_bytes_limit for session in self._sessions)
        if limit is not None and waiting and waiting + cache_bytes > limit:
            raise EngineUnavailableError(
                f"the step caches of waiting requests will need {waiting} bytes, and this one {cache_bytes}; the limit "
                f"is {limit} (limits.max_queue_cache_bytes): try again later",
                reason="queue_full",
            )

    def put(self, sessions: Sequence[Session]) -> None:
        """Add requests, all or none; raises what `require_room` and `require_cache_room` raise."""
        with self._changed:
            self.require_room(len(sessions))
            self.require_cache_room(sum(session.cache_bytes_limit for session in sessions))
            self._sessions = (*self._sessions, *sessions)
            self._changed.notify_all()

    def put_back(self, sessions: Sequence[Session]) -> None:
        """Let requests that were accepted before wait again, in front of all others, whatever the limits are."""
        with self._changed:
            self._sessions = (*sessions, *self._sessions)
            self._changed.notify_all()

    def wait_for_any(self, is_over: Callable[[], bool] = never) -> None:
        """Sleep until someone waits, the line is closed, or `is_over`; whoever makes that true calls `wake`."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_closed or is_over() or any(not s.is_claimed for s in self._sessions))

    def wait_closed(self, seconds: float) -> bool:
        """Sleep so long, or until the line is closed; True if it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self.is_closed, seconds)

    def wake(self) -> None:
        """Let everyone who sleeps look again."""
        with self._changed:
            self._changed.notify_all()

    def remove(self, session: Session) -> None:
        """Take a request out of the line."""
        with self._changed:
            self._sessions = tuple(each for each in self._sessions if each is not session)

    def drop_unwanted(self) -> None:
        """Answer cancelled and overdue requests where they wait, so that they free their place at once."""
        for session in self._sessions:
            error = session.unwanted()
            if error:
                self._fail(session, error)

    def fail_all(self, error: LemicaError) -> None:
        """Answer everyone who waits with an error."""
        for session in self._sessions:
            self._fail(session, error)

    def _fail(self, session: Session, error: LemicaError) -> None:
        if session.claim():  # else somebody has just started it
            self.remove(session)
            session.fail(error)

    def close(self) -> None:
        """Take nothing more, and wake whoever waits."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()
