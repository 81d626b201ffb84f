"""How much of the engine's time each client got: a virtual clock for each client that has requests."""

from __future__ import annotations

from collections.abc import Collection

from lemica_backend.ranking import Shares


class FairShares:
    """Virtual time of clients. One thread changes it, any thread may ask for `shares`.

    A client's clock runs while it is served. One that comes, or comes back, begins where the last of those present
    stands: having been away earns nothing. One that leaves ahead of them keeps its lead until they have caught up, so
    that leaving and coming back earns nothing either.
    """

    def __init__(self) -> None:
        self._clocks: dict[str, float] = {}
        self._present: frozenset[str] = frozenset()

    def update(self, clients: Collection[str]) -> None:
        """Take note of which clients have requests."""
        staying = [self._clocks[client] for client in self._present.intersection(clients)]
        floor = min(staying) if staying else min((self._clocks.get(client, 0.0) for client in clients), default=0.0)
        present = {client: max(floor, self._clocks.get(client, floor)) for client in clients}
        ahead = {client: clock for client, clock in self._clocks.items() if client not in present and clock > floor}
        self._clocks = ahead | present if staying else present
        self._present = frozenset(clients)

    def charge(self, client: str, seconds: float) -> None:
        """Count time that a present client was served."""
        self._clocks = self._clocks | {client: self._clocks.get(client, 0.0) + seconds}

    def shares(self, lead_s: float) -> Shares:
        """Return where the present clients stand."""
        clocks, present = self._clocks, self._present
        served = {client: clocks[client] for client in present if client in clocks}
        least = min(served.values(), default=0.0)
        return Shares({client: clock - least for client, clock in served.items()}, lead_s)
