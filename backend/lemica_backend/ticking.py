"""Take a step of some requests at once, and learn from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lemica_backend.cost_model import CostModel, Work
from lemica_backend.fair_shares import FairShares
from lemica_backend.models import VideoModel
from lemica_backend.profile import timed_tick
from lemica_backend.session import Session
from lemica_backend.watch import Watcher

_log = logging.getLogger(__name__)


class Ticker:
    """Runs ticks on the model; only the engine's thread uses it.

    Parameters
    ----------
    model : VideoModel
    cost : CostModel
        Learns how long each tick took.
    shares : FairShares
        Charges its time to the clients, each by what its work would have cost alone.
    watcher : Watcher
        Is told of it.
    """

    def __init__(self, model: VideoModel, cost: CostModel, shares: FairShares, watcher: Watcher) -> None:
        self._model = model
        self._cost = cost
        self._shares = shares
        self._watcher = watcher

    def step(self, sessions: Sequence[Session]) -> list[Session]:
        """Return those that took their step.

        When the tick fails, each request tries alone, so that a fault stays with its request.
        """
        if not sessions:
            return []
        works = [session.work for session in sessions]
        steps = {session: session.step for session in sessions}
        try:
            seconds = timed_tick(self._model, [session.job for session in sessions])
        except Exception:  # any fault of a forward; found again, and answered, here
            return [each for each, step in steps.items() if each.step > step or each.step_alone(self._model)]
        self._cost.observe(works, seconds)
        self._charge(sessions, works, seconds)
        self._tell(works, seconds)
        return list(sessions)

    def _charge(self, sessions: Sequence[Session], works: Sequence[Work], seconds: float) -> None:
        alone = [self._cost.seconds(work) for work in works]
        for session, alone_s in zip(sessions, alone, strict=True):
            session.stepped(seconds)
            self._shares.charge(session.planned.client, seconds * alone_s / sum(alone))

    def _tell(self, works: list[Work], seconds: float) -> None:
        try:
            self._watcher.ticked(works, seconds)
        except Exception:  # the engine must survive whoever watches it
            _log.exception("a watcher failed")
