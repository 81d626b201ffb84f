"""What crosses between a front, in Triton's process, and the process of its engine."""

from __future__ import annotations

from typing import Any, NamedTuple

from lemica_backend.errors import LemicaError
from lemica_backend.types import GenerationRequest, GenerationResult
from lemica_backend.watch import Accepted, EngineLoad, Progress


class Attach(NamedTuple):
    """The first word of a front.

    Attributes
    ----------
    plan_json : str or None
        Its plan; None for none.
    owns_plan : bool
        Whether its plan is the one that is served from now on; else it follows whatever is, and `plan_json` is only
        for the case that nothing is.
    since : float
        When the front was made, on the machine's monotonic clock; of several plans, the newest front's is served.
    """

    plan_json: str | None
    owns_plan: bool
    since: float


class Attached(NamedTuple):
    """The engine's first word: it serves. The process id is the engine's."""

    pid: int


class NotAttached(NamedTuple):
    """The engine's first word: it cannot serve that front."""

    error: LemicaError


class Submit(NamedTuple):
    """Rows that belong together; everything that is said about them bears their number."""

    number: int
    requests: list[GenerationRequest]
    wants_progress: bool = False
    preview_every: int | None = None


class Cancel(NamedTuple):
    """The client of these rows has gone away."""

    number: int


class Told(NamedTuple):
    """How a lone row gets on."""

    number: int
    event: Accepted | Progress


class Done(NamedTuple):
    """The one answer to a `Submit`."""

    number: int
    outcome: list[GenerationResult] | LemicaError


class AskLoad(NamedTuple):
    """A front wants to know what the engine holds."""

    number: int


class Load(NamedTuple):
    """What the engine holds."""

    number: int
    load: EngineLoad


class Watched(NamedTuple):
    """Something for a `lemica_backend.watch.Watcher`: the method to call, and with what."""

    method: str
    arguments: tuple[Any, ...]
