"""The rows of one Triton request on their way through the engine, answered together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from lemica_backend.caller import Caller, Submission
from lemica_backend.errors import LemicaError, of_row
from lemica_backend.types import GenerationRequest, GenerationResult, Outcome
from lemica_backend.watch import Accepted, Progress

if TYPE_CHECKING:  # it knows torch
    from lemica_backend.plans import ServedPlan


class Submitter(Protocol):
    """The one method of the engine that is needed here."""

    def submit_all(self, submissions: Sequence[Submission]) -> None:
        """Queue all of the requests or none; see `lemica_backend.engine.Engine.submit_all`."""


class RowGroup:
    """Collects the outcomes of several rows and replies once: with all results, or with the first error.

    Parameters
    ----------
    size : int
        Rows.
    reply : callable
        Gets the results in the order of the rows, or an error that names its row; from the engine's thread,
        or from the one that submits.
    is_cancelled : callable
        Whether the client has gone away; not asked any more after the reply.
    """

    def __init__(
        self,
        size: int,
        *,
        reply: Callable[[list[GenerationResult] | LemicaError], None],
        is_cancelled: Callable[[], bool],
    ) -> None:
        self._size = size
        self._reply = reply
        self._is_cancelled = is_cancelled
        self._lock = threading.Lock()
        self._results: dict[int, GenerationResult] = {}
        self._is_closed = False
        self._error: LemicaError | None = None
        self._has_left = threading.Event()
        self.callers = [
            Caller(partial(self._take, row), self._is_unwanted, answered=lambda: self._error) for row in range(size)
        ]

    def hear(
        self,
        on_accepted: Callable[[Accepted], None],
        on_step: Callable[[Progress], None],
        preview_every: int | None = None,
    ) -> None:
        """Let somebody hear how the only row gets on; before it is submitted."""
        (caller,) = self.callers
        self.callers = [caller._replace(on_accepted=on_accepted, on_step=on_step, preview_every=preview_every)]

    def submit(self, engine: Submitter, requests: Sequence[GenerationRequest], plan: ServedPlan | None = None) -> None:
        """Hand all rows to the engine at once; if it refuses one, it takes none, and that is the reply."""
        try:
            engine.submit_all([Submission(*each, plan) for each in zip(requests, self.callers, strict=True)])
        except LemicaError as error:
            self.refuse(error)

    def cancel(self) -> None:
        """Say that the client has gone away."""
        self._has_left.set()

    def refuse(self, error: LemicaError) -> None:
        """Reply with an error, unless there was a reply; rows that run are not wanted any more."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed, self._error = True, error
        self._reply(error)

    def _take(self, row: int, outcome: Outcome) -> None:
        with self._lock:
            if self._is_closed:
                return
            if isinstance(outcome, GenerationResult):
                self._results[row] = outcome
            else:
                self._error = of_row(outcome, row, self._size)
            self._is_closed = self._error is not None or len(self._results) == self._size
            if not self._is_closed:
                return
        self._reply(self._error or self._in_order())

    def _in_order(self) -> list[GenerationResult]:
        return [self._results[row] for row in range(self._size)]

    def _is_unwanted(self) -> bool:
        with self._lock:  # the reply must not go out between the two questions
            return self._is_closed or self._has_left.is_set() or self._is_cancelled()
