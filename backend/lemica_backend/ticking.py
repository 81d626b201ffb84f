"""Let a worker take a step of some requests at once, or several steps, and learn from it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from lemica_backend.cost_model import CostModel, Work
from lemica_backend.fair_shares import FairShares
from lemica_backend.session import Session
from lemica_backend.watch import Ticked, Watcher, tell
from lemica_backend.worker import Stepped, Worker


class Ticker:
    """Runs ticks and keeps the books of all lanes.

    Parameters
    ----------
    cost : CostModel
        Learns how long each piece of work took.
    shares : FairShares
        Is told what the requests were served, each by what its work would have cost alone.
    watcher : Watcher
        Is told of every tick.
    deciding : threading.RLock
        Held while the cost model or the shares change.
    """

    def __init__(self, cost: CostModel, shares: FairShares, watcher: Watcher, deciding: threading.RLock) -> None:
        self._cost = cost
        self._shares = shares
        self._watcher = watcher
        self._deciding = deciding

    def step(self, worker: Worker, sessions: Sequence[Session], most: int = 1) -> Stepped:
        """Take at most so many steps, all of one kind; requests that fail are answered, the others know what they took.

        Raises
        ------
        WorkerLostError
            If the worker is gone; nobody is answered.
        """
        works = [session.work for session in sessions]
        stepped = worker.step([session.number for session in sessions], most)
        with self._deciding:
            if not (stepped.failures or stepped.is_split):
                self._cost.observe(works, stepped.seconds / stepped.taken)
            self._charge(sessions, works, stepped.seconds)
        for session in sessions:
            if session.number not in stepped.failures:
                session.stepped(stepped.seconds, stepped.cached_bytes[session.number], stepped.taken)
        for session in sessions:
            if session.number in stepped.failures:
                session.fail(stepped.failures[session.number])
        tell(self._watcher, Ticked(tuple(works), stepped.seconds, stepped.fallbacks, stepped.taken))
        return stepped

    def took(self, session: Session, kind: str, seconds: float) -> None:
        """Take note of the text or the decoding of one request."""
        with self._deciding:
            self._cost.observe([Work(kind, 1)], seconds)
            self._shares.charge(session.standing(), seconds)

    def _charge(self, sessions: Sequence[Session], works: Sequence[Work], seconds: float) -> None:
        alone = [self._cost.seconds(work) for work in works]
        whole = sum(alone)
        for session, alone_s in zip(sessions, alone, strict=True):
            part = alone_s / whole if whole else 1 / len(works)
            self._shares.charge(session.standing(), seconds * part)
