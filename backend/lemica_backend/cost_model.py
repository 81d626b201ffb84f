"""What the engine's work costs in seconds: ticks, what is left of a request, and whether sharing a tick pays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from lemica_backend.cost_curve import CostCurve

COMPUTE = "compute"  # a step that runs the block stack; the other kinds of steps are the sources of operators
ENCODE_TEXT = "encode_text"
DECODE = "decode"


class Work(NamedTuple):
    """What one request adds to a tick.

    Attributes
    ----------
    kind : str
        ``compute``, or the source that its skipped step is made of (`lemica_backend.operators.Operator.source`).
    rows : int
        One for each guidance branch.
    """

    kind: str
    rows: int


class CostModel:
    """Seconds by kind of work and rows, kept up to date by `observe`. One thread observes, any thread reads.

    Parameters
    ----------
    share_margin : float
        Two requests share a tick where that saves at least this share of what the second one costs alone.
    """

    def __init__(self, share_margin: float = 0.1) -> None:
        self._margin = share_margin
        self._curves: dict[str, CostCurve] = {}

    @property
    def is_ready(self) -> bool:
        """Whether a computed step was measured, so that the model can predict at all."""
        return COMPUTE in self._curves

    def observe(self, works: Iterable[Work], seconds: float) -> None:
        """Learn from the measured time of a tick, or of one request's text or decoding.

        In a tick of several kinds, the computed rows take what the others are known to leave.
        """
        rows = _by_kind(works)
        kind = COMPUTE if COMPUTE in rows else max(rows, key=lambda kind: rows[kind])
        others = sum(self.seconds(Work(other, rows[other])) for other in rows if other != kind)
        rest = max(seconds - others, seconds / 10)  # never nothing, however wrong the others are
        curve = self._curves.get(kind, CostCurve())
        curve.observe(rows[kind], rest)
        self._curves = {**self._curves, kind: curve}

    def seconds(self, work: Work) -> float:
        """Return what one kind of work takes.

        A skipped step of a kind never seen counts as a computed one, which it never exceeds; text and decoding as
        nothing.
        """
        known = self._curves.get(work.kind)
        if known is None and work.kind not in (ENCODE_TEXT, DECODE):
            known = self._curves.get(COMPUTE)
        return (known.seconds(work.rows) if known else None) or 0.0

    def tick_s(self, works: Iterable[Work]) -> float:
        """Return what a tick takes in which all of `works` is done."""
        return sum(self.seconds(Work(*work)) for work in _by_kind(works).items())

    def ticks_in_a_forward(self, works: Sequence[Work], most: int) -> int:
        """Return how many such ticks take no longer than a computed step of one of these requests alone.

        At least 1 and at most `most`; 1 for work that was not measured yet.
        """
        forward_s, tick_s = min(self.seconds(Work(COMPUTE, work.rows)) for work in works), self.tick_s(works)
        return max(1, min(most, int(forward_s / tick_s))) if tick_s else 1

    def left_s(self, steps_left: Mapping[str, int], rows: int) -> float:
        """Return what is left of a request that runs alone: its steps by kind, and decoding."""
        steps = sum(count * self.seconds(Work(kind, rows)) for kind, count in steps_left.items())
        return steps + self.seconds(Work(DECODE, 1))

    def is_worth_sharing(self, works: Iterable[Work], joining: Work, *, gaining: int) -> bool:
        """Whether `joining` should step in the same tick as `works`; see `is_gain`.

        Only rows of one kind share a forward. A number of rows that was hardly tried, or not for long, is tried by two
        requests; by more, only where the guess already gains, which takes no row for cheaper than those before it.
        Otherwise one noisy measurement of two would lead, try by try, to the largest batch, which delays all in it.

        Parameters
        ----------
        works : iterable of Work
            Of the requests that step already.
        joining : Work
        gaining : int
            Requests that would be served sooner: the one that joins, and all behind it.
        """
        together = [work for work in works if work.kind == joining.kind]
        rows = sum(work.rows for work in together)
        if not rows:
            return False
        if len(together) == 1 and not self._is_settled(joining.kind, rows + joining.rows):
            return True
        added_s = self._added_s(joining, rows)
        alone_s = self.seconds(joining)
        saves = added_s <= (1 - self._margin) * alone_s
        return saves and is_gain(added_s / alone_s if alone_s else 0.0, delayed=len(together), gaining=gaining)

    def saved_s(self, works: Sequence[Work], joining: Sequence[Work]) -> float:
        """Return what one tick for all of them takes less than one for each side."""
        return self.tick_s(works) + self.tick_s(joining) - self.tick_s([*works, *joining])

    def slowdowns(self, rows: int, most: int) -> tuple[float, ...]:
        """Return how much longer a computed step takes with k requests in it than alone, for k = 1, 2, ...

        Up to `most` requests of `rows` rows each, or to where one more saves too little.
        """
        one, found = Work(COMPUTE, rows), [1.0]
        alone_s = self.seconds(one)
        while alone_s and len(found) < most:
            added = self._added_s(one, rows * len(found)) / alone_s
            if added > 1 - self._margin:
                break
            found.append(found[-1] + added)
        return tuple(found)

    def _added_s(self, joining: Work, rows: int) -> float:
        return self.seconds(Work(joining.kind, rows + joining.rows)) - self.seconds(Work(joining.kind, rows))

    def _is_settled(self, kind: str, rows: int) -> bool:
        return kind in self._curves and self._curves[kind].is_settled(rows)


def is_gain(added: float, *, delayed: int, gaining: int) -> bool:
    """Whether the mean latency falls when a request joins a tick.

    Parameters
    ----------
    added : float
        How much longer the tick gets, in times of the joining request's step alone.
    delayed : int
        Requests that step already, and are later by that.
    gaining : int
        Requests that are sooner by the rest: the one that joins, and all behind it.

    Examples
    --------
    Two requests that are half done together later than one after the other:

    >>> is_gain(0.7, delayed=1, gaining=1), is_gain(0.7, delayed=1, gaining=3)
    (False, True)
    """
    return delayed * added <= gaining * (1 - added)


def _by_kind(works: Iterable[Work]) -> Counter[str]:
    rows: Counter[str] = Counter()
    for work in works:
        rows[work.kind] += work.rows
    return rows
