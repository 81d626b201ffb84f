"""What the engine promises: whether a request is taken, with how many computed steps, and when it will be ready."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from lemica_backend.budgeting import Budgeting, Option, Range
from lemica_backend.config import ModelConfig
from lemica_backend.errors import EngineUnavailableError
from lemica_backend.fair_shares import FairShares
from lemica_backend.foresight import foresee
from lemica_backend.profile import Profile
from lemica_backend.ranking import Ranking, Shares
from lemica_backend.session import Session
from lemica_backend.standing import Standing


class Admission:
    """Decides for one session among others. Before anything was measured, it lets everything pass.

    Parameters
    ----------
    config : ModelConfig
    profile : Profile
    ranking : Ranking
        The order in which requests go on.
    fair_shares : FairShares
    lanes : int
        Devices that are fed from the one line.
    absent_s : callable
        Seconds until one of them has a worker; 0 while one has.
    """

    def __init__(
        self,
        config: ModelConfig,
        profile: Profile,
        ranking: Ranking,
        fair_shares: FairShares,
        *,
        lanes: int = 1,
        absent_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._config = config
        self._profile = profile
        self._ranking = ranking
        self._fair_shares = fair_shares
        self._lanes = lanes
        self._absent_s = absent_s

    def shares(self) -> Shares:
        """Return where the clients stand."""
        defaults, cost = self._config.defaults, self._profile.cost
        whole_s = cost.left_s({"compute": defaults.num_inference_steps}, self._profile.usual_rows)
        return self._fair_shares.shares(self._config.scheduling.client_lead * whole_s)

    def accept(self, session: Session, others: Sequence[Session]) -> None:
        """Choose the course of a new request and predict when it will be ready.

        With a deadline, the largest that meets it beside the others as they are, or else beside the others with as few
        steps as their ranges allow. Without one, the largest that the load allows.

        Raises
        ------
        EngineUnavailableError
            If no course meets the deadline; it names the earliest that could be met.
        """
        if not self._profile.cost.is_ready:
            return
        now, crowd = time.perf_counter(), [other.standing() for other in others]
        budgeting, options = self._budgeting(now), self._options(session)
        if session.planned.deadline_ms is None:
            total = budgeting.up_to(options, self._range(session), crowd)
        else:
            found = budgeting.within_deadlines(options, crowd)
            if found is None:
                crowd = [self._at_floor(other) for other in others]
                found = budgeting.within_deadlines(options, crowd)
            if found is None:
                raise _too_late(session, _earliest(budgeting, options, crowd))
            total = found
        self._choose(session, total)
        session.eta_s = self._foresee([*crowd, session.standing()], now)[session.number]

    def begin(self, session: Session, others: Sequence[Session]) -> None:
        """Choose the course of a request that is about to take its first step, as things are now."""
        if session.planned.is_range and self._profile.cost.is_ready:
            self._choose(session, self._anew(session, others))

    def go_on(self, session: Session, others: Sequence[Session]) -> None:
        """Plan the steps that are left anew, if the request has a range and just computed a step."""
        planned, step = session.planned, session.step
        if not planned.is_range or step - 1 not in planned.computed or not self._profile.cost.is_ready:
            return
        total = self._anew(session, others)
        if total != len(planned.computed):
            session.replan(session.served.replanning.course(planned, step, total))

    def etas(self, sessions: Sequence[Session]) -> Mapping[int, float]:
        """Return the seconds from now to each request's predicted answer, by number; empty if nothing is known yet."""
        if not self._profile.cost.is_ready:
            return {}
        now = time.perf_counter()
        finish = self._foresee([session.standing() for session in sessions], now)
        return {number: at - now for number, at in finish.items()}

    def _anew(self, session: Session, others: Sequence[Session]) -> int:
        crowd = [other.standing() for other in others]
        current = len(session.planned.computed)
        return self._budgeting(time.perf_counter()).anew(self._options(session), current, self._range(session), crowd)

    def _choose(self, session: Session, total: int) -> None:
        session.choose(session.served.replanning.course(session.planned, 0, total))

    def _options(self, session: Session) -> list[Option]:
        planned, step = session.planned, session.step
        return [
            Option(total, session.standing(session.served.replanning.steps_left(planned, step, total)))
            for total in session.served.replanning.totals(planned, step)
        ]

    def _at_floor(self, session: Session) -> Standing:
        """Return how a request would stand with as few steps as its range still allows."""
        planned, step = session.planned, session.step
        least = session.served.replanning.totals(planned, step)[0] if planned.is_range else len(planned.computed)
        return session.standing(session.served.replanning.steps_left(planned, step, least))

    def _range(self, session: Session) -> Range:
        courses, profile = session.planned.courses, self._profile
        ceiling = session.planned.on(courses[-1])
        return Range(courses[0].budget, courses[-1].budget, profile.cost.left_s(ceiling.steps_left[0], session.rows))

    def _budgeting(self, now: float) -> Budgeting:
        slowdowns = self._slowdowns()
        return Budgeting(
            partial(self._foresee, now=now),
            margin=self._config.scheduling.deadline_margin,
            pace=slowdowns[-1] / len(slowdowns) / self._lanes,
            now=now,
        )

    def _foresee(self, standings: Sequence[Standing], now: float) -> Mapping[int, float]:
        slowdowns, begins = self._slowdowns(), now + self._absent_s()
        return foresee(standings, self._ranking, self.shares(), slowdowns=slowdowns, now=begins, lanes=self._lanes)

    def _slowdowns(self) -> tuple[float, ...]:
        return self._profile.cost.slowdowns(self._profile.usual_rows, self._config.limits.max_active)


def _earliest(budgeting: Budgeting, options: Sequence[Option], crowd: Sequence[Standing]) -> float | None:
    """Return the earliest deadline of the smallest option, or else of the largest: being longer, it may come later."""
    found = (budgeting.earliest(option.standing, crowd) for option in (options[0], options[-1]))
    return next((earliest_s for earliest_s in found if earliest_s is not None), None)


def _too_late(session: Session, earliest_s: float | None) -> EngineUnavailableError:
    budget, deadline_ms, limit_ms = session.planned.budget, session.planned.deadline_ms, session.limit_s * 1e3
    if earliest_s is None:
        return EngineUnavailableError(
            f"deadline_ms is {deadline_ms}, but no deadline of budget {budget!r} can be promised now without breaking "
            "one that is promised already: leave it out, or try again later",
            reason="deadline",
        )
    earliest_ms = math.ceil(earliest_s * 1e3)
    beyond = f", and {limit_ms:.0f} is the request's time limit" if limit_ms < (deadline_ms or 0) else ""
    return EngineUnavailableError(
        f"deadline_ms is {deadline_ms}, but with what runs and waits now, the earliest that budget {budget!r} can meet "
        f"is {earliest_ms}{beyond}: allow that, ask for less, or try again later",
        reason="deadline",
    )
