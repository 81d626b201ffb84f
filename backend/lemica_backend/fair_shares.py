"""How much of the engine's time each client got: a virtual clock for each client that has requests."""

from __future__ import annotations

from collections.abc import Collection

from lemica_backend.ranking import Shares


class FairShares:
    """Virtual time of clients. One thread changes it, any thread may ask for `shares`.

    A client's clock runs while it is served, and the common one as each client's would if all had equal shares
    (weighted fair queueing: Parekh and Gallager, 1993, section III). One that comes, or comes back, begins at the
    common clock, or where it left if that is later: being away earns nothing, and nor does leaving. The common clock
    never stops, so that clients that always come new do not keep one that is ahead waiting for ever.
    """

    def __init__(self) -> None:
        self._clocks: dict[str, float] = {}
        self._present: frozenset[str] = frozenset()
        self._common = 0.0

    def update(self, clients: Collection[str]) -> None:
        """Take note of which clients have requests."""
        if not self._present.intersection(clients):
            self._clocks, self._common = {}, 0.0
        came = {client: max(self._common, self._clocks.get(client, 0.0)) for client in set(clients) - self._present}
        ahead = {client: clock for client, clock in self._clocks.items() if client in clients or clock > self._common}
        self._clocks = ahead | came
        self._present = frozenset(clients)

    def charge(self, client: str, seconds: float) -> None:
        """Count time that a present client was served."""
        self._clocks = self._clocks | {client: self._clocks.get(client, 0.0) + seconds}
        self._common += seconds / max(1, len(self._present))

    def shares(self, lead_s: float) -> Shares:
        """Return where the present clients stand."""
        clocks, present = self._clocks, self._present
        served = {client: clocks[client] for client in present if client in clocks}
        least = min(served.values(), default=0.0)
        return Shares({client: clock - least for client, clock in served.items()}, lead_s)
