"""In which order requests go on: priority, promises, fair shares, and the operator's policy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Literal, NamedTuple

from lemica_backend.standing import Party, Standing

Policy = Literal["srpt", "fcfs", "edf"]
_IN_DANGER, _AS_USUAL, _HOPELESS = range(3)


def _first_come(standing: Standing, ageing: float) -> float:
    return standing.arrived_s


def _least_left(standing: Standing, ageing: float) -> float:
    """Order by what is left less what waiting makes up for.

    Two requests age alike, so this is the same order at any time: one that comes d seconds later overtakes only if it
    is more than ``ageing * d`` shorter. A request of which x seconds are left is therefore overtaken by none that comes
    more than ``x / ageing`` seconds after it.
    """
    return standing.left_s + ageing * standing.arrived_s


def _earliest_deadline(standing: Standing, ageing: float) -> float:
    return standing.limit_s if standing.deadline_s is None else standing.deadline_s


_POLICIES: dict[Policy, Callable[[Standing, float], float]] = {
    "fcfs": _first_come,
    "srpt": _least_left,
    "edf": _earliest_deadline,
}


class Shares(NamedTuple):
    """What clients were served, in seconds that count from where the last of the same priority stands.

    Attributes
    ----------
    served_s : mapping of Party to float
        By priority and client, of those that have a request.
    lead_s : float
        How far a client may be ahead of the last one.
    turn : int or None
        The number of a request that goes first although others have a higher priority; see `lemica_backend.turns`.
    """

    served_s: Mapping[Party, float]
    lead_s: float
    turn: int | None = None

    def ahead(self) -> frozenset[Party]:
        """Return who was served too much to go on while others of the same priority wait."""
        return frozenset(party for party, served_s in self.served_s.items() if served_s > self.lead_s)

    def after(self, spent_s: Mapping[Party, float], present: Collection[Party]) -> Shares:
        """Return the shares once they were served so long, among those that still have requests."""
        served = {party: self.served_s.get(party, 0.0) + spent_s.get(party, 0.0) for party in present}
        return self._replace(served_s=since_last(served))


def since_last(clocks: Mapping[Party, float]) -> dict[Party, float]:
    """Return how far each is ahead of the last one of its priority."""
    least: dict[int, float] = {}
    for party, seconds in clocks.items():
        least[party.priority] = min(seconds, least.get(party.priority, seconds))
    return {party: seconds - least[party.priority] for party, seconds in clocks.items()}


class Rank(NamedTuple):
    """Where a request stands at one moment, but for its client's share.

    Attributes
    ----------
    tier : tuple of int
        By priority and promise; decides before the shares do.
    place : tuple of (float, int)
        By policy and arrival; decides after them.
    """

    tier: tuple[int, int]
    place: tuple[float, int]


def in_order(standings: Iterable[Standing], ranks: Mapping[int, Rank], shares: Shares) -> list[Standing]:
    """Return the requests by their ranks, clients that are ahead behind the others of their tier.

    Whose turn it is comes before all but those in front whose promise is in danger.
    """
    ahead = shares.ahead()

    def key(standing: Standing) -> tuple[tuple[int, int], bool, tuple[float, int]]:
        rank = ranks[standing.number]
        return rank.tier, standing.party in ahead, rank.place

    ordered = sorted(standings, key=key)
    return ordered if shares.turn is None else _with_turn(ordered, ranks, shares.turn)


def _with_turn(ordered: Sequence[Standing], ranks: Mapping[int, Rank], turn: int) -> list[Standing]:
    mine = [each for each in ordered if each.number == turn]
    others = [each for each in ordered if each.number != turn]
    urgent = list(takewhile(lambda each: ranks[each.number].tier[1] == _IN_DANGER, others))
    return [*urgent, *mine, *others[len(urgent) :]]


class Ranking(NamedTuple):
    """An order of requests.

    By priority; then promises in danger before all others, and those that cannot be kept any more behind them; then
    clients that are ahead of others with that priority behind those that are not; then by policy; then by arrival. Now
    and then one of a lower priority has its turn.

    Attributes
    ----------
    policy : {"srpt", "fcfs", "edf"}
    ageing : float
        See `lemica_backend.config.Scheduling`.
    deadline_margin : float
    """

    policy: Policy
    ageing: float
    deadline_margin: float

    def order(self, standings: Iterable[Standing], shares: Shares, now: float) -> list[Standing]:
        """Return the requests, the one that should go first in front."""
        standings = list(standings)
        return in_order(standings, self.ranks(standings, now), shares)

    def ranks(self, standings: Iterable[Standing], now: float) -> dict[int, Rank]:
        """Return each request's rank, by its number."""
        return {standing.number: self._rank(standing, now) for standing in standings}

    def _rank(self, standing: Standing, now: float) -> Rank:
        tier = (-standing.priority, self._danger(standing, now))
        return Rank(tier, (_POLICIES[self.policy](standing, self.ageing), standing.number))

    def _danger(self, standing: Standing, now: float) -> int:
        if standing.deadline_s is None:
            return _AS_USUAL
        slack_s = standing.deadline_s - now - standing.left_s
        margin_s = self.deadline_margin * standing.left_s
        if slack_s < -margin_s:
            return _HOPELESS
        # half, so that nothing is promised because it would be in danger from the beginning
        return _IN_DANGER if slack_s < margin_s / 2 else _AS_USUAL
