"""The engine's end of the connection to one front: takes its requests, sends what becomes of them."""

from __future__ import annotations

import dataclasses
import logging
import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lemica_backend.errors import EngineUnavailableError, LemicaError, ModelLoadError
from lemica_backend.messages import (
    AskLoad,
    Attach,
    Attached,
    Cancel,
    Done,
    Load,
    NotAttached,
    Submit,
    Told,
)
from lemica_backend.outbox import Outbox
from lemica_backend.row_group import RowGroup, Submitter
from lemica_backend.types import GenerationResult
from lemica_backend.watch import Accepted, EngineLoad, Progress
from lemica_backend.wire import Connection, ConnectionLostError

if TYPE_CHECKING:  # it knows torch, which is loaded later
    from lemica_backend.plans import ServedPlan

_log = logging.getLogger(__name__)


class Engine(Submitter, Protocol):
    """What is needed of `lemica_backend.engine.Engine`."""

    def load(self) -> EngineLoad:
        """Return what it holds."""


class FrontLink:
    """One attached front. Its requests end with it.

    Parameters
    ----------
    connection : Connection
    attach : callable
        Gets the link and the front's first word; returns the engine and the front's own plan (None: whatever is
        served), or raises `LemicaError`.
    plan : callable
        Returns the plan that is served now.
    leave : callable
        Gets the link when the front is gone.
    pid : int
        The engine's process.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        attach: Callable[[FrontLink, Attach], tuple[Engine, ServedPlan | None]],
        plan: Callable[[], ServedPlan],
        leave: Callable[[FrontLink], None],
        pid: int,
    ) -> None:
        self._connection = connection
        self._attach = attach
        self._plan = plan
        self._leave = leave
        self._pid = pid
        self.outbox = Outbox()
        self.owns_plan = False  # until it is attached
        self._groups: dict[int, RowGroup] = {}
        self._gone = threading.Event()

    @property
    def groups(self) -> list[RowGroup]:
        """What is not answered yet."""
        return list(self._groups.copy().values())

    def run(self) -> None:
        """Serve the front until it leaves."""
        sender = threading.Thread(target=self._send_all, name="lemica-to-front", daemon=True)
        sender.start()
        try:
            self._serve()
        except ConnectionLostError:
            _log.debug("a front left")
        except Exception:  # a bug of ours; the other fronts go on
            _log.exception("a front could not be served")
        finally:
            self._gone.set()
            self._leave(self)
            self.outbox.close()
            sender.join()
            self._connection.close()

    def _serve(self) -> None:
        try:
            self._engine, self._own_plan = self._attach(self, self._connection.receive())
        except ConnectionLostError:
            raise
        except LemicaError as error:
            self.outbox.put(NotAttached(_with_details(error)))
            return
        except Exception as error:  # whatever loading weights raises
            _log.exception("the engine could not be loaded")
            self.outbox.put(NotAttached(ModelLoadError(f"{type(error).__name__}: {error}")))
            return
        self.outbox.put(Attached(self._pid))
        while True:
            self._take(self._connection.receive())

    def _take(self, message: object) -> None:
        if isinstance(message, Submit):
            self._submit(message)
        elif isinstance(message, Cancel):
            group = self._groups.get(message.number)
            if group:
                group.cancel()
        elif isinstance(message, AskLoad):
            self.outbox.put(Load(message.number, self._engine.load()))

    def _submit(self, submit: Submit) -> None:
        number = submit.number
        group = RowGroup(len(submit.requests), reply=partial(self._reply, number), is_cancelled=self._gone.is_set)
        if submit.wants_progress:
            tell = partial(self._tell, number)
            group.hear(tell, tell, submit.preview_every)
        self._groups[number] = group
        try:
            group.submit(self._engine, submit.requests, self._own_plan or self._plan())
        except Exception as error:  # a bug of the engine; its caller gets an answer all the same
            _log.exception("the engine could not take a request")
            group.refuse(EngineUnavailableError(f"the engine could not take the request: {type(error).__name__}"))

    def _tell(self, number: int, event: Accepted | Progress) -> None:
        self.outbox.put(Told(number, event))

    def _reply(self, number: int, outcome: list[GenerationResult] | LemicaError) -> None:
        self._groups.pop(number, None)
        if isinstance(outcome, LemicaError):
            self.outbox.put(Done(number, _with_details(outcome)))
        else:
            self.outbox.put(Done(number, [_without_latents(result) for result in outcome]))

    def _send_all(self) -> None:
        try:
            while (message := self.outbox.get()) is not None:
                self._connection.send(message)
        except ConnectionLostError:
            self._connection.close()  # wakes whoever receives


def _with_details(error: LemicaError) -> LemicaError:
    """Return the error with the traceback of its cause as a note: causes do not cross between processes."""
    if error.__cause__ is not None:
        error.add_note("".join(traceback.format_exception(error.__cause__)))
    return error


def _without_latents(result: GenerationResult) -> GenerationResult:
    """Return a result without what no client gets."""
    return dataclasses.replace(result, latents=np.empty(0, np.float32))
