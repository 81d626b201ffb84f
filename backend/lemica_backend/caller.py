"""Who sends a request to the engine, and how to reach them; no torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lemica_backend.types import GenerationRequest, Outcome
from lemica_backend.watch import Progress


def never() -> bool:
    """Return False: a caller that does not cancel."""
    return False


class Caller(NamedTuple):
    """How a request reaches the one who sent it; called from the engine's thread.

    Attributes
    ----------
    on_done : callable
        Gets the outcome, once.
    is_cancelled : callable
        Whether the client has gone away.
    on_step : callable or None
        Gets the progress after every step.
    """

    on_done: Callable[[Outcome], None]
    is_cancelled: Callable[[], bool] = never
    on_step: Callable[[Progress], None] | None = None


class Submission(NamedTuple):
    """A request, and who sent it."""

    request: GenerationRequest
    caller: Caller
