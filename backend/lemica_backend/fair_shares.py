"""How much of the engine's time each client got: a virtual clock for each client that has requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lemica_backend.ranking import Shares, since_last
from lemica_backend.standing import Party, Standing
from lemica_backend.turns import Turns


class FairShares:
    """Virtual time of clients, by priority. One thread changes it, any thread may ask for `shares`.

    A client's clock runs while it is served, and the common one as each client's would if all had equal shares
    (weighted fair queueing: Parekh and Gallager, 1993, section III). One that comes, or comes back, begins at the
    common clock, or where it left if that is later: being away earns nothing, and nor does leaving. The common clock
    never stops, so that clients that always come new do not keep one that is ahead waiting for ever.

    Each priority has clocks of its own. Who waits with a lower priority is not served, whatever its share, and must not
    be the one behind which all others seem to be far ahead.

    Parameters
    ----------
    low_priority_share : float
        See `lemica_backend.turns`.
    """

    def __init__(self, low_priority_share: float = 0.0) -> None:
        self._levels: Mapping[int, _Clocks] = {}
        self._turns = Turns(low_priority_share)

    def update(self, standings: Collection[Standing]) -> None:
        """Take note of how all accepted requests stand."""
        clients: dict[int, set[str]] = {}
        for standing in standings:
            clients.setdefault(standing.priority, set()).add(standing.client)
        levels = {priority: self._levels.get(priority, _Clocks()) for priority in clients}
        for priority, level in levels.items():
            level.update(clients[priority])
        self._levels = levels
        self._turns.update(standings)

    def charge(self, standing: Standing, seconds: float) -> None:
        """Charge time that a request was served to its client."""
        level = self._levels.get(standing.priority)
        if level:
            level.charge(standing.client, seconds)
        self._turns.charge(standing, seconds)

    def shares(self, lead_s: float) -> Shares:
        """Return where the present clients stand."""
        levels = self._levels
        clocks = {
            Party(priority, client): seconds
            for priority, level in levels.items()
            for client, seconds in level.present().items()
        }
        return Shares(since_last(clocks), lead_s, self._turns.turn)


class _Clocks:
    """Of the clients that have requests of one priority."""

    def __init__(self) -> None:
        self._clocks: dict[str, float] = {}  # replaced as a whole, so that readers see one state
        self._present: frozenset[str] = frozenset()
        self._common = 0.0

    def update(self, clients: Collection[str]) -> None:
        if not self._present.intersection(clients):
            self._clocks, self._common = {}, 0.0
        came = {client: max(self._common, self._clocks.get(client, 0.0)) for client in set(clients) - self._present}
        ahead = {client: clock for client, clock in self._clocks.items() if client in clients or clock > self._common}
        self._clocks = ahead | came
        self._present = frozenset(clients)

    def charge(self, client: str, seconds: float) -> None:
        self._clocks = self._clocks | {client: self._clocks.get(client, 0.0) + seconds}
        self._common += seconds / max(1, len(self._present))

    def present(self) -> dict[str, float]:
        clocks, present = self._clocks, self._present
        return {client: clocks[client] for client in present if client in clocks}
