"""The line in which accepted requests wait for their first step."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from lemica_backend.errors import EngineUnavailableError, InvalidRequestError
from lemica_backend.session import Session


class WaitingLine:
    """A bounded line of requests in the order of their arrival; the scheduler says who starts. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sessions: tuple[Session, ...] = ()
        self._changed = threading.Condition()
        self.is_closed = False

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Everyone who waits now."""
        return self._sessions

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
                f"{waiting} requests are waiting, the limit is {self._limit}{needed}: try again later"
            )

    def put(self, sessions: Sequence[Session]) -> None:
        """Add requests, all or none; raises what `require_room` raises."""
        with self._changed:
            self.require_room(len(sessions))
            self._sessions = (*self._sessions, *sessions)
            self._changed.notify()

    def wait_for_any(self) -> None:
        """Sleep until someone waits or the line is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._sessions or self.is_closed)

    def remove(self, session: Session) -> None:
        """Take a request out of the line."""
        with self._changed:
            self._sessions = tuple(each for each in self._sessions if each is not session)

    def drop_unwanted(self) -> None:
        """Answer cancelled and overdue requests where they wait, so that they free their place at once."""
        for session in self._sessions:
            if session.drop_if_unwanted():
                self.remove(session)

    def close(self) -> None:
        """Take nothing more, and wake whoever waits."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()

    def drain(self) -> tuple[Session, ...]:
        """Return and forget everything that still waits."""
        with self._changed:
            sessions, self._sessions = self._sessions, ()
            return sessions
