"""The line in which accepted requests wait for their first step."""

from __future__ import annotations

import threading

from lemica_backend.errors import EngineUnavailableError
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

    def require_room(self) -> None:
        """Raise `EngineUnavailableError` if the line is full or closed."""
        if self.is_closed:
            raise EngineUnavailableError("the server is shutting this model down; send the request again")
        if len(self._sessions) >= self._limit:
            raise EngineUnavailableError(f"{self._limit} requests are waiting, the limit; try again later")

    def put(self, session: Session) -> None:
        """Add a request; raises what `require_room` raises."""
        with self._changed:
            self.require_room()
            self._sessions = (*self._sessions, session)
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
