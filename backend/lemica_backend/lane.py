"""One device's part of the engine: tick by tick, its worker takes some of the requests one denoising step further."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from lemica_backend.admission import Admission
from lemica_backend.config import ModelConfig
from lemica_backend.cost_model import DECODE, ENCODE_TEXT, CostModel
from lemica_backend.drift import DriftChecks
from lemica_backend.errors import LemicaError
from lemica_backend.fair_shares import FairShares
from lemica_backend.full_run import run_while_idle
from lemica_backend.ranking import Ranking
from lemica_backend.row_limit import RowLimit
from lemica_backend.scheduler import Room, Scheduler
from lemica_backend.session import Session
from lemica_backend.ticking import Ticker
from lemica_backend.waiting import WaitingLine
from lemica_backend.watch import Watcher
from lemica_backend.worker import Worker, WorkerLostError

_NOTHING_FITS_S = 0.05  # until a lane looks again where all that waits has to wait for something
_log = logging.getLogger(__name__)


class Common(NamedTuple):
    """What all lanes of an engine share.

    Attributes
    ----------
    deciding : threading.RLock
        Held while a lane chooses, and while what it learned is noted.
    sessions : callable
        Returns every accepted request without an answer.
    lanes : callable
        Returns the lanes that have a worker.
    watcher : Watcher
    report : callable
        Is called after every tick.
    """

    config: ModelConfig
    line: WaitingLine
    cost: CostModel
    ranking: Ranking
    shares: FairShares
    admission: Admission
    ticker: Ticker
    deciding: threading.RLock
    sessions: Callable[[], tuple[Session, ...]]
    lanes: Callable[[], Sequence[Lane]]
    watcher: Watcher
    report: Callable[[], None]


class Lane:
    """Chooses from the waiting line and from what it has started; one thread runs it.

    Parameters
    ----------
    common : Common
    """

    def __init__(self, common: Common) -> None:
        self.active: tuple[Session, ...] = ()  # claimed by this lane, and not answered
        self._common = common
        wanted = common.config.scheduling
        self._scheduler = Scheduler(common.ranking, common.cost, align_ticks=wanted.align_ticks)
        self._rows = RowLimit()
        self.ticks = 0

    def serve(self, worker: Worker) -> None:
        """Run until the line is closed or the worker is lost while nothing runs.

        Raises
        ------
        WorkerLostError
            If the worker is lost; what it had started is in `active`, without an answer.
        """
        wanted, common = self._common.config.scheduling, self._common
        drift = DriftChecks(partial(run_while_idle, worker), wanted.drift_share, common.watcher)
        while self._has_work(worker, drift):
            self._drop_unwanted()
            self._tick(worker)
            self._finish(worker, drift)
            common.report()

    def give_up(self, error: LemicaError, *, is_last: bool) -> None:
        """Answer everything that is started with an error, or let it wait again, once, where that is allowed."""
        self._drop_unwanted()
        retries = self._common.config.scheduling.retry_lost and not is_last
        back = [session for session in self.active if retries and not session.was_lost]
        for session in self.active:
            if session not in back:
                session.fail(error)
        for session in back:
            session.start_over()
        self.active = ()
        self._common.line.put_back(back)

    def _has_work(self, worker: Worker, drift: DriftChecks) -> bool:
        """Sleep while there is nothing to do. False: closing, or the worker is lost."""
        if not self.active:
            drift.run(while_idle=lambda: self._common.line.is_idle and not worker.is_lost)
            self._common.line.wait_for_any(lambda: worker.is_lost)
        return not (self._common.line.is_closed or worker.is_lost)

    def _drop_unwanted(self) -> None:
        self._common.line.drop_unwanted()
        self.active = tuple(session for session in self.active if not session.drop_if_unwanted())

    def _tick(self, worker: Worker) -> None:
        """Take a step of the requests that the scheduler chooses, or several skipped ones."""
        stepping = self._choose()
        ready = [session for session in stepping if session.is_started or self._start(session, worker)]
        self._forget_answered()
        if not ready:
            self._common.line.wait_closed(0.0 if stepping else _NOTHING_FITS_S)
            return
        rows = sum(session.rows for session in ready)
        stepped = self._common.ticker.step(worker, ready, self._most_steps(ready))
        self.ticks += 1
        self._rows.stepped(rows, stepped.too_many_rows)
        self._forget_answered()
        self._go_on(worker, [session for session in ready if not session.is_answered])

    def _most_steps(self, ready: Sequence[Session]) -> int:
        """Return how many steps to take before the next choice: skipped ones at once, where nobody follows each.

        They take no longer than a computed one, which whoever comes or cancels may have to wait for as well.
        """
        if self._scheduler.is_holding or any(session.caller.on_step for session in ready):
            return 1
        skipped = min(session.skipped_ahead for session in ready)
        return self._common.cost.ticks_in_a_forward([session.work for session in ready], skipped)

    def _choose(self) -> list[Session]:
        """Return the requests that step now; those that have to be started are taken from the line."""
        common = self._common
        with common.deciding:
            waiting = [session for session in common.line.sessions if not session.is_claimed]
            sessions = {session.number: session for session in (*waiting, *self.active)}
            chosen = [sessions[number] for number in self._numbers(sessions)]
            new = [session for session in chosen if session not in self.active and session.claim()]
            self.active = (*self.active, *new)
            for session in new:
                common.line.remove(session)
        return [session for session in chosen if session in self.active]

    def _numbers(self, sessions: dict[int, Session]) -> list[int]:
        """Return whom the scheduler chooses; where that fails, the first one, so that the others go on."""
        try:
            standings = [session.standing() for session in sessions.values()]
            elsewhere = [session.standing() for session in self._common.sessions() if session.number not in sessions]
            self._common.shares.update([*standings, *elsewhere])
            shares = self._common.admission.shares()
            chosen = self._scheduler.choose(standings, shares, self._room(), time.perf_counter())
            return [standing.number for standing in chosen]
        except Exception:  # a bug of the engine: nobody may wait for an answer that never comes
            _log.exception("choosing failed; the request that came first goes on")
            started = [session.number for session in self.active]
            return sorted(started or sessions)[:1]

    def _room(self) -> Room:
        limits = self._common.config.limits
        reserved = sum(session.cache_bytes_limit for session in self.active)
        free_bytes = math.inf if limits.cache_bytes is None else limits.cache_bytes - reserved
        return Room(min(limits.max_active, self._share()) - len(self.active), free_bytes, self._rows.rows)

    def _share(self) -> int:
        """Return how many requests this lane may have started: its part of all, so that no other lane is idle."""
        lanes = max(1, len(self._common.lanes()))
        return -(-len(self._common.sessions()) // lanes)

    def _start(self, session: Session, worker: Worker) -> bool:
        with self._common.deciding:
            self._safely("choosing the steps of a request", self._common.admission.begin, session)
        seconds = session.start(worker)
        if seconds is not None:
            self._common.ticker.took(session, ENCODE_TEXT, seconds)
        return seconds is not None

    def _go_on(self, worker: Worker, stepped: Sequence[Session]) -> None:
        for session in stepped:
            if not session.is_finished:
                with self._common.deciding:
                    self._safely("planning a request anew", self._common.admission.go_on, session)
        if any(session.caller.on_step for session in stepped):
            etas = self._etas()
            for session in stepped:
                eta_s = etas.get(session.number)
                session.tell_progress(worker, None if eta_s is None else eta_s * 1e3)

    def _safely(self, what: str, decide: Callable[[Session, Sequence[Session]], None], session: Session) -> None:
        """Decide about one request beside all others; where that fails, it goes on as it is."""
        try:
            decide(session, [other for other in self._common.sessions() if other is not session])
        except WorkerLostError:
            raise
        except Exception:  # a bug of the engine
            _log.exception("%s failed; it goes on as it is", what)

    def _etas(self) -> dict[int, float]:
        try:
            return dict(self._common.admission.etas(self._common.sessions()))
        except Exception:  # a bug of the engine
            _log.exception("predicting failed; nothing is told")
            return {}

    def _finish(self, worker: Worker, drift: DriftChecks) -> None:
        for session in [session for session in self.active if session.is_finished]:
            result = session.finish(worker, self._common.config)
            self._forget_answered()
            if result:
                self._common.ticker.took(session, DECODE, session.timings_ms["decode"] / 1e3)
                drift.offer(session.planned, result.frames)

    def _forget_answered(self) -> None:
        self.active = tuple(session for session in self.active if not session.is_answered)
