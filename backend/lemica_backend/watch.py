"""What the engine tells those who watch it: progress to a request's caller, everything to the server's metrics.

All of it comes from the engine's thread, which waits meanwhile; what a watcher raises is logged and forgotten.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from lemica_backend.cost_model import Work
from lemica_backend.types import Outcome


class Progress(NamedTuple):
    """A request has taken a step.

    Attributes
    ----------
    step : int
        The one it has taken, 0-based.
    num_steps : int
    is_computed : bool
        Whether the step ran the block stack.
    eta_ms : float or None
        Milliseconds from now to its predicted answer; None if nothing can be predicted yet.
    """

    step: int
    num_steps: int
    is_computed: bool
    eta_ms: float | None


class Answered(NamedTuple):
    """A request has its answer.

    Attributes
    ----------
    outcome : GenerationResult or LemicaError
    budget : str
        As it was asked for.
    total_ms : float
        From its arrival.
    eta_ms : float or None
        What was predicted for `total_ms` when the request was accepted.
    """

    outcome: Outcome
    budget: str
    total_ms: float
    eta_ms: float | None


class EngineLoad(NamedTuple):
    """What the engine holds at one moment.

    Attributes
    ----------
    waiting, started : int
        Accepted requests without their first step, and with it.
    cached_bytes : int
        What the step caches hold.
    reserved_bytes : int
        What they hold at most, if nothing else starts; 0 if sizes were not measured at load.
    cache_limit_bytes : int or None
        ``limits.cache_bytes``.
    backlog_s : float
        What is left of all requests, one after another.
    """

    waiting: int
    started: int
    cached_bytes: int
    reserved_bytes: int
    cache_limit_bytes: int | None
    backlog_s: float


class Watcher(Protocol):
    """What the engine calls; see `lemica_backend.engine.Engine`."""

    def ticked(self, works: list[Work], seconds: float) -> None:
        """Take note of a tick: the work of each request in it, and how long it took."""

    def answered(self, answered: Answered) -> None:
        """Take note of an answer."""


class NoWatcher:
    """Watches nothing."""

    def ticked(self, works: list[Work], seconds: float) -> None:
        """Do nothing."""

    def answered(self, answered: Answered) -> None:
        """Do nothing."""
