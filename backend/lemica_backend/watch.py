"""What the engine tells those who watch it: progress to a request's caller, everything to the server's metrics.

Events are small plain values, so that they can be sent from one process to another: no frames, no exceptions. They
come from the engine's threads, which wait meanwhile; what a watcher raises is logged and forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lemica_backend.cost_model import Work

OK = "ok"  # the outcome of a request with a video; the others are `lemica_backend.errors.LemicaError.kind`
_log = logging.getLogger(__name__)


class Accepted(NamedTuple):
    """A request was accepted.

    Attributes
    ----------
    budget : str
        As it was asked for, or the default.
    eta_ms : float or None
        Milliseconds from its arrival to its predicted answer; None if nothing can be predicted yet.
    """

    budget: str
    eta_ms: float | None


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
    preview : ndarray of uint8, shape (height, width, 3), or None
        A small frame of what there is, where the caller wants one at this step.
    """

    step: int
    num_steps: int
    is_computed: bool
    eta_ms: float | None
    preview: NDArray[np.uint8] | None = None


class Refused(NamedTuple):
    """A request was not accepted. Of several rows that belong together, each is refused.

    Attributes
    ----------
    outcome : str
        ``invalid`` or ``unavailable``.
    reason : str
        ``invalid``, or what `lemica_backend.errors.EngineUnavailableError.reason` says.
    message : str
        What the client is told.
    budget : str
        As it was asked for, not checked, or the default; empty if it could not be read.
    request_id, client : str
        Empty if unknown.
    """

    outcome: str
    reason: str
    message: str
    budget: str = ""
    request_id: str = ""
    client: str = ""


class Started(NamedTuple):
    """A request has taken its first step.

    Attributes
    ----------
    budget : str
        As it was asked for, or the default.
    queue_s, first_step_s : float
        Seconds from its arrival to its start, and to the end of its first step.
    """

    budget: str
    queue_s: float
    first_step_s: float


class Ticked(NamedTuple):
    """One step of some requests, together, or several steps alike.

    Attributes
    ----------
    works : tuple of Work
        What each of them added to a step.
    seconds : float
        Of all steps.
    fallbacks : tuple of (str, int)
        For each reason, rows that the block engine left to the eager one.
    steps : int
    """

    works: tuple[Work, ...]
    seconds: float
    fallbacks: tuple[tuple[str, int], ...] = ()
    steps: int = 1


class Answered(NamedTuple):
    """An accepted request has its answer.

    Attributes
    ----------
    outcome : str
        ``ok``, or `lemica_backend.errors.LemicaError.kind`.
    budget : str
        As it was asked for, or the default.
    num_steps, computed_steps : int
        T, and how many of them run the block stack on the course that it was on.
    total_s : float
        From its arrival.
    eta_s : float or None
        What was predicted for `total_s` when the request was accepted.
    stages_s : mapping of str to float
        Of ``total_s``, as far as it got: ``queue``, ``encode_text``, ``denoise``, ``paused``, ``decode``.
    seed : int
    message : str
        What the client is told in place of a video.
    is_warned_of : bool
        Whether the video's info has a `quality_warning`.
    request_id, client : str
        Empty if unknown.
    priority : int
    """

    outcome: str
    budget: str
    num_steps: int
    computed_steps: int
    total_s: float
    eta_s: float | None
    stages_s: Mapping[str, float]
    seed: int
    message: str = ""
    is_warned_of: bool = False
    request_id: str = ""
    client: str = ""
    priority: int = 0


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


class Drifted(NamedTuple):
    """A served request was computed in full, too, in idle time.

    Attributes
    ----------
    result : str
        ``measured``; ``dropped`` if real work came first; ``failed``.
    budget : str
        Of the request that was served.
    psnr_db : float or None
        Of its frames, against those of the full computation; None unless measured.
    lpips : float or None
        The same; None also where LPIPS cannot be had.
    """

    result: str
    budget: str
    psnr_db: float | None = None
    lpips: float | None = None


class WorkerRestarted(NamedTuple):
    """A worker process died and was started again.

    Attributes
    ----------
    device : str
    reason : str
        For the log.
    """

    device: str
    reason: str


Event = Refused | Started | Ticked | Answered | EngineLoad | Drifted | WorkerRestarted


class Watcher(Protocol):
    """What the engine calls, through `tell`; see `lemica_backend.engine.Engine`."""

    def refused(self, refused: Refused) -> None:
        """Take note of a request that was not accepted."""

    def started(self, started: Started) -> None:
        """Take note of a request's first step."""

    def ticked(self, ticked: Ticked) -> None:
        """Take note of a tick."""

    def answered(self, answered: Answered) -> None:
        """Take note of an answer to an accepted request."""

    def loaded(self, load: EngineLoad) -> None:
        """Take note of what the engine holds: after ticks, and every second."""

    def drifted(self, drifted: Drifted) -> None:
        """Take note of a comparison with a full computation."""

    def worker_restarted(self, restarted: WorkerRestarted) -> None:
        """Take note of a worker that was started again."""


_CALLS: dict[type, str] = {
    Refused: "refused",
    Started: "started",
    Ticked: "ticked",
    Answered: "answered",
    EngineLoad: "loaded",
    Drifted: "drifted",
    WorkerRestarted: "worker_restarted",
}


def deliver(watcher: Watcher, event: Event) -> None:
    """Call the method of `watcher` that takes such an event."""
    getattr(watcher, _CALLS[type(event)])(event)


def tell(watcher: Watcher, event: Event) -> None:
    """Call the method of `watcher` that takes such an event; log what it raises."""
    try:
        deliver(watcher, event)
    except Exception:  # the engine must survive whoever watches it
        _log.exception("a watcher failed")


class NoWatcher:
    """Watches nothing. Others may start from it and watch a part."""

    def refused(self, refused: Refused) -> None:
        """Do nothing."""

    def started(self, started: Started) -> None:
        """Do nothing."""

    def ticked(self, ticked: Ticked) -> None:
        """Do nothing."""

    def answered(self, answered: Answered) -> None:
        """Do nothing."""

    def loaded(self, load: EngineLoad) -> None:
        """Do nothing."""

    def drifted(self, drifted: Drifted) -> None:
        """Do nothing."""

    def worker_restarted(self, restarted: WorkerRestarted) -> None:
        """Do nothing."""
