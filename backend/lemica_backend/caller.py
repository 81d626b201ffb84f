"""Who sends a request to the engine, and how to reach them; no torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from lemica_backend.errors import LemicaError
from lemica_backend.types import GenerationRequest, Outcome
from lemica_backend.watch import Accepted, Progress

if TYPE_CHECKING:  # it knows torch
    from lemica_backend.plans import ServedPlan


def never() -> bool:
    """Return False: a caller that does not cancel."""
    return False


def no_answer() -> None:
    """Return None: a caller that nobody else answers."""


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
    on_accepted : callable or None
        Hears, from the one who submits and before anything else, that the request was accepted.
    preview_every : int or None
        Steps after which progress carries a preview; None for never.
    answered : callable
        The error that the caller was answered already: why it is cancelled, if it was not the client who did it.
    """

    on_done: Callable[[Outcome], None]
    is_cancelled: Callable[[], bool] = never
    on_step: Callable[[Progress], None] | None = None
    on_accepted: Callable[[Accepted], None] | None = None
    preview_every: int | None = None
    answered: Callable[[], LemicaError | None] = no_answer


class Submission(NamedTuple):
    """A request, who sent it, and the plan that it follows; None for the one with which the engine started."""

    request: GenerationRequest
    caller: Caller
    plan: ServedPlan | None = None
