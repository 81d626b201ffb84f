"""When each request will be finished if nothing else comes: the engine's work, played ahead request by request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lemica_backend.cost_model import is_gain
from lemica_backend.ranking import Ranking, Shares, in_order
from lemica_backend.standing import Party, Standing

_TOO_SMALL_S = 1e-9


def foresee(
    standings: Iterable[Standing],
    ranking: Ranking,
    shares: Shares,
    *,
    slowdowns: Sequence[float],
    now: float,
    lanes: int = 1,
) -> dict[int, float]:
    """Return when each request is predicted to be finished, by its number.

    The first k requests in order go on together, slower than alone by the k-th of ``slowdowns``, until one of them is
    finished; k is as many as the scheduler would let share. Promises come in danger, and clients get ahead, only as
    far as they are so now: what the order would make of that later is left out, as are requests that do not fit into
    memory.

    Each of several lanes lets k share, as if a started request could move to a lane that has become free. It cannot, so
    what is predicted is a little early where one lane has more left than the others.

    Notes
    -----
    O(N log N) for one client, one more factor N for several.
    """
    line = list(standings)
    ranks = ranking.ranks(line, now)
    waiting = in_order(line, ranks, shares)
    parties = {standing.party for standing in waiting}
    is_shared = len(parties) > len({party.priority for party in parties})
    finished: dict[int, float] = {}
    at = now
    while waiting:
        size = lanes * _group_size(slowdowns, -(-len(waiting) // lanes))
        group, rest = waiting[:size], waiting[size:]
        share_s = min(standing.left_s for standing in group)
        together = -(-len(group) // lanes)
        took = share_s * slowdowns[together - 1]
        at += took
        moved = [standing._replace(left_s=standing.left_s - share_s) for standing in group]
        finished |= {standing.number: at for standing in moved if standing.left_s <= _TOO_SMALL_S}
        waiting = [standing for standing in moved if standing.left_s > _TOO_SMALL_S] + rest
        if is_shared:
            ahead = shares.ahead()
            shares = shares.after(_spent(group, took / together), {standing.party for standing in waiting})
            if shares.ahead() != ahead:
                waiting = in_order(waiting, ranks, shares)
    return finished


def _spent(group: Sequence[Standing], seconds: float) -> Mapping[Party, float]:
    """Return the time of a group by priority and client, so many seconds for each request."""
    spent: dict[Party, float] = {}
    for standing in group:
        spent[standing.party] = spent.get(standing.party, 0.0) + seconds
    return spent


def _group_size(slowdowns: Sequence[float], waiting: int) -> int:
    size = 1
    while size < min(waiting, len(slowdowns)):
        if not is_gain(slowdowns[size] - slowdowns[size - 1], delayed=size, gaining=waiting - size):
            break
        size += 1
    return size
