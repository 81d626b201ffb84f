"""How many rows one forward of a device may have, learned from forwards that had too little memory."""

from __future__ import annotations

_TICKS_TO_RAISE = 200  # one forward in so many may be wasted on finding out whether there is more memory now


class RowLimit:
    """Halved by every forward that had too little memory, doubled after 200 ticks that had enough.

    Memory may be short because of something that passes: another process on the same device, a single large request.
    One thread uses it.
    """

    def __init__(self) -> None:
        self.rows: int | None = None
        self._ticks = 0
        self._first_failed = 0

    def stepped(self, rows: int, too_many_rows: int | None) -> None:
        """Take note of a tick of so many rows, and of the fewest that were too many in it."""
        if too_many_rows is not None:
            self._first_failed = max(self._first_failed, too_many_rows)
            self.rows, self._ticks = max(1, too_many_rows // 2), 0
        elif self.rows is not None:
            self._ticks += 1
            if self._ticks >= _TICKS_TO_RAISE:
                self.rows, self._ticks = 2 * self.rows, 0
                self.rows = None if self.rows > self._first_failed else self.rows
