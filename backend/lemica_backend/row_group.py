"""The rows of one Triton request on their way through the engine, answered together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from lemica_backend.errors import LemicaError
from lemica_backend.types import GenerationRequest, GenerationResult, Outcome


class Submitter(Protocol):
    """The one method of the engine that is needed here."""

    def submit(
        self,
        request: GenerationRequest,
        *,
        on_done: Callable[[Outcome], None],
        is_cancelled: Callable[[], bool] = ...,
    ) -> None:
        """Queue a request; see `lemica_backend.engine.Engine.submit`."""


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

    def submit(self, engine: Submitter, requests: Sequence[GenerationRequest]) -> None:
        """Hand every row to the engine; when it refuses one, the rows before it are cancelled."""
        for row, request in enumerate(requests):
            try:
                engine.submit(request, on_done=partial(self._take, row), is_cancelled=self._is_unwanted)
            except LemicaError as error:
                self._take(row, error)
                return

    def _take(self, row: int, outcome: Outcome) -> None:
        with self._lock:
            if self._is_closed:
                return
            if isinstance(outcome, GenerationResult):
                self._results[row] = outcome
            self._is_closed = isinstance(outcome, LemicaError) or len(self._results) == self._size
            if not self._is_closed:
                return
        self._reply(self._name_row(row, outcome) if isinstance(outcome, LemicaError) else self._in_order())

    def _in_order(self) -> list[GenerationResult]:
        return [self._results[row] for row in range(self._size)]

    def _name_row(self, row: int, error: LemicaError) -> LemicaError:
        return error if self._size == 1 else type(error)(f"row {row}: {error}")

    def _is_unwanted(self) -> bool:
        with self._lock:  # the reply must not go out between the two questions
            return self._is_closed or self._is_cancelled()
