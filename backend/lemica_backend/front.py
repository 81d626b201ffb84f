"""A front's end of the connection to its engine: what a Triton model instance hands its requests to; no torch here."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from lemica_backend.engine_process import EngineOrder, attach_engine
from lemica_backend.errors import EngineUnavailableError, LemicaError
from lemica_backend.messages import AskLoad, Attach, Cancel, Done, Load, Submit, Told, Watched
from lemica_backend.types import GenerationRequest, GenerationResult
from lemica_backend.watch import Accepted, EngineLoad, Progress
from lemica_backend.wire import Connection, ConnectionLostError

_POLL_S = 0.05  # between questions whether clients are there; each is one to Triton's process
_POLL_EACH_S = 0.002  # for each open request, so that the questions take a few per cent of a core at most
_RESTART_S = 1.0  # at least, between attempts to start a dead engine again
_log = logging.getLogger(__name__)


class Client(NamedTuple):
    """Who waits for an answer; called from a thread of the front, which they must not keep.

    Attributes
    ----------
    on_done : callable
        Gets the results in the order of the rows, or the error; once.
    is_cancelled : callable
        Whether the client has gone away; not asked any more after the answer.
    on_event : callable or None
        Hears how a lone row gets on.
    preview_every : int or None
        Steps after which progress carries a preview.
    """

    on_done: Callable[[list[GenerationResult] | LemicaError], None]
    is_cancelled: Callable[[], bool]
    on_event: Callable[[Accepted | Progress], None] | None = None
    preview_every: int | None = None


class Front:
    """Attached to one engine; starts it if there is none, and again if it dies.

    Parameters
    ----------
    order : EngineOrder
    plan_json : str or None
    owns_plan : bool
        See `lemica_backend.messages.Attach`.
    watcher : Watcher, optional
        Hears of everything that the engine does while this front is, of those that own their plan, attached longest.

    Raises
    ------
    LemicaError
        If the engine cannot be had.
    """

    def __init__(
        self, order: EngineOrder, *, plan_json: str | None, owns_plan: bool, watcher: object | None = None
    ) -> None:
        self._order = order
        self._attach = Attach(plan_json, owns_plan, time.monotonic())
        self._watcher = watcher
        self._numbers = itertools.count()
        self._clients: dict[int, Client] = {}
        self._loads: dict[int, Future[EngineLoad]] = {}
        self._lock = threading.Lock()  # of the two above, and of asking clients
        self._is_closed = threading.Event()
        self._connection: Connection | None = None
        self._restarting = threading.Lock()
        self._next_attempt_s = 0.0
        self.engine_pid = 0
        self._connect()
        threading.Thread(target=self._ask_clients, name="lemica-cancels", daemon=True).start()

    def submit(self, requests: Sequence[GenerationRequest], client: Client) -> None:
        """Hand over rows that belong together; the client is answered once, whatever happens. Does not wait."""
        number, connection = next(self._numbers), self._connection
        with self._lock:
            self._clients[number] = client
        try:
            if connection is None:
                raise ConnectionLostError
            wants = client.on_event is not None
            connection.send(Submit(number, list(requests), wants, client.preview_every))
        except ConnectionLostError:
            self._answer(number, EngineUnavailableError("the engine is starting again; send the request again"))
            self._restart()
        if self._connection is not connection:  # it was lost meanwhile, and with it whoever was registered late
            self._answer(number, _lost())

    def load(self, timeout_s: float = 10.0) -> EngineLoad:
        """Return what the engine holds.

        Raises
        ------
        EngineUnavailableError
            If it does not say.
        """
        number, load = next(self._numbers), Future[EngineLoad]()
        self._loads[number] = load
        try:
            if self._connection is None:
                raise ConnectionLostError
            self._connection.send(AskLoad(number))
            return load.result(timeout_s)
        except (ConnectionLostError, TimeoutError) as error:
            raise EngineUnavailableError("the engine does not answer") from error
        finally:
            self._loads.pop(number, None)

    def close(self) -> None:
        """Leave the engine; what is open is answered."""
        self._is_closed.set()
        if self._connection is not None:
            self._connection.close()
        self._answer_all(EngineUnavailableError("the server is shutting this model down; send the request again"))

    def _connect(self) -> None:
        connection, self.engine_pid = attach_engine(self._order, self._attach)
        self._connection = connection
        threading.Thread(target=self._receive, args=(connection,), name="lemica-from-engine", daemon=True).start()

    def _receive(self, connection: Connection) -> None:
        try:
            while True:
                self._take(connection.receive())
        except ConnectionLostError:
            if not self._is_closed.is_set():
                _log.error("the engine's process %d ended; it is started again", self.engine_pid)
        except Exception:
            _log.exception("what the engine says cannot be understood")
        connection.close()
        self._connection = None
        self._answer_all(_lost())
        self._restart()

    def _take(self, message: Any) -> None:
        if isinstance(message, Done):
            self._answer(message.number, message.outcome)
        elif isinstance(message, Told):
            client = self._clients.get(message.number)
            if client and client.on_event:
                client.on_event(message.event)
        elif isinstance(message, Load):
            load = self._loads.get(message.number)
            if load:
                load.set_result(message.load)
        elif isinstance(message, Watched) and self._watcher is not None:
            self._tell_watcher(message)

    def _tell_watcher(self, watched: Watched) -> None:
        try:
            getattr(self._watcher, watched.method)(*watched.arguments)
        except Exception:
            _log.exception("a watcher failed")

    def _answer(self, number: int, outcome: list[GenerationResult] | LemicaError) -> None:
        with self._lock:  # nobody asks the client any more
            client = self._clients.pop(number, None)
        if client is None:
            return
        try:
            client.on_done(outcome)
        except Exception:
            _log.exception("answering a request failed")

    def _answer_all(self, error: LemicaError) -> None:
        for number in tuple(self._clients.copy()):
            self._answer(number, error)

    def _restart(self) -> None:
        """Start the engine again, in a thread of its own, unless that is under way or was tried just now."""
        if self._is_closed.is_set() or time.monotonic() < self._next_attempt_s:
            return
        if self._restarting.acquire(blocking=False):
            threading.Thread(target=self._restart_once, name="lemica-restart", daemon=True).start()

    def _restart_once(self) -> None:
        try:
            if self._connection is None and not self._is_closed.is_set():
                self._connect()
        except Exception as error:  # the next request tries again
            _log.error("the engine could not be started again: %s", error)
        finally:
            self._next_attempt_s = time.monotonic() + _RESTART_S
            self._restarting.release()

    def _ask_clients(self) -> None:
        """Tell the engine of clients that went away."""
        told: set[int] = set()
        while not self._is_closed.wait(_POLL_S + _POLL_EACH_S * len(self._clients)):
            told &= set(self._clients.copy())
            for number in set(self._clients.copy()) - told:
                if self._has_left(number):
                    told.add(number)
                    self._tell_cancel(number)

    def _has_left(self, number: int) -> bool:
        with self._lock:  # the answer must not go out while Triton is asked
            client = self._clients.get(number)
            try:
                return client is not None and client.is_cancelled()
            except Exception:  # asking crosses into the server; a fault there must not stop this thread
                _log.exception("a client cannot be asked whether it has gone away")
                return True

    def _tell_cancel(self, number: int) -> None:
        connection = self._connection
        try:
            if connection is not None:
                connection.send(Cancel(number))
        except ConnectionLostError:
            _log.debug("the engine is gone, and the request with it")


def _lost() -> EngineUnavailableError:
    return EngineUnavailableError("the engine's process ended and is started again; send the request again")
