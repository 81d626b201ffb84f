"""What the scheduler knows of one accepted request at one moment: a plain value, without model, clock or thread."""

from __future__ import annotations

from typing import NamedTuple

from lemica_backend.cost_model import Work


class Party(NamedTuple):
    """Who shares with its like: the requests of one client that have one priority."""

    priority: int
    client: str


class Standing(NamedTuple):
    """How a request stands.

    Attributes
    ----------
    number : int
        Its own, in the order of arrival.
    priority : int
    client : str
    arrived_s : float
        On the engine's clock, as all times here.
    limit_s : float
        When it is given up.
    deadline_s : float or None
        When it was promised to be ready.
    left_s : float
        What is left of it if it runs alone.
    work : Work
        Its next step.
    ticks_to_compute : int
        Skipped steps before its next computed one.
    is_started : bool
    cache_bytes : int
        What its step cache holds at most.
    """

    number: int
    priority: int
    client: str
    arrived_s: float
    limit_s: float
    deadline_s: float | None
    left_s: float
    work: Work
    ticks_to_compute: int = 0
    is_started: bool = False
    cache_bytes: int = 0

    @property
    def party(self) -> Party:
        """Among whom its client gets a fair share: those of its priority."""
        return Party(self.priority, self.client)
