"""Every segment that a plan might hold, and where it stands in the graph of steps, gaps and operators."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from lemica_planner.errors import CalibrationError
from lemica_planner.forecast import fit_weights
from lemica_planner.replayer import OperatorFacts, Segment
from lemica_planner.switches import may_look_back, may_skip

__all__ = ["Candidates", "require_plannable"]

NONE = -1


class Candidates:
    """The segments up to `max_span`, for operators that look back at most one computed step.

    Parameters
    ----------
    num_steps : int
        Steps T.
    max_span : int
        Longest edge L.
    operators : mapping of str to OperatorFacts
        Those to choose from.
    grams : mapping of str to ndarray, shape (T, T)
        By part of a value, for the operators that are fitted.
    switches : collection of int
        Steps that no edge skips, and across which no operator looks back.

    Attributes
    ----------
    segments : tuple of Segment
        All of them, N in number.
    slots : ndarray of int, shape (operators, L + 1, T, T)
        ``slots[o, g, i, j]``: which segment operator o makes of the edge (i, j) when the computed step before i is
        i - g (g = 0: none); -1 where there is none. Operators that do not look back have one segment for all g.
    """

    def __init__(
        self,
        num_steps: int,
        max_span: int,
        operators: Mapping[str, OperatorFacts],
        grams: Mapping[str, NDArray[np.float64]],
        switches: Collection[int] = (),
    ) -> None:
        require_plannable(operators)
        self.num_steps, self.max_span = num_steps, max_span
        self.operators = dict(operators)
        self.grams = grams
        self.switches = tuple(sorted(switches))
        self.slots = np.full((len(operators), max_span + 1, num_steps, num_steps), NONE)
        found: dict[Segment, int] = {}
        for number, (name, facts) in enumerate(operators.items()):
            for start, end, gap in self._edges():
                segment = self._segment(name, facts, start, end, gap)
                self.slots[number, gap, start, end] = found.setdefault(segment, len(found))
        self.segments = tuple(found)

    def weights(self, errors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weight of every edge by its gap, the best operator's: shape (L + 1, T, T).

        Parameters
        ----------
        errors : ndarray, shape (N,)
            Of each segment.
        """
        known = np.append(errors, np.inf)  # slot -1
        weights: NDArray[np.float64] = known[self.slots].min(axis=0)
        steps = np.arange(self.num_steps - 1)
        weights[:, steps, steps + 1] = 0
        return weights

    def on_path(self, steps: Sequence[int], errors: NDArray[np.float64]) -> list[int]:
        """Return the segment of each edge of a path that skips steps: the best operator's."""
        known = np.append(errors, np.inf)
        gaps = [0, *(end - start for start, end in pairwise(steps))]
        edges = [(gap, start, end) for gap, (start, end) in zip(gaps, pairwise(steps), strict=False) if end > start + 1]
        places = [self.slots[:, gap, start, end] for gap, start, end in edges]
        return [int(place[known[place].argmin()]) for place in places]

    def _edges(self) -> list[tuple[int, int, int]]:
        """Return start, end and gap of every edge that skips a step."""
        return [
            (start, end, gap)
            for start in range(self.num_steps - 2)
            for end in range(start + 2, min(start + self.max_span, self.num_steps - 1) + 1)
            if may_skip(start, end, self.switches)
            for gap in (range(1, min(start, self.max_span) + 1) if start else (0,))
        ]

    def _segment(self, name: str, facts: OperatorFacts, start: int, end: int, gap: int) -> Segment:
        looks_back = gap and facts.looks_back and may_look_back(start - gap, start, self.switches)
        history = (start - gap,) if looks_back else ()
        if not facts.fits:
            return Segment(start, end, name, history)
        known, grams = (*history, start), [self.grams[part] for part in facts.fits]
        parts = ([fit_weights(gram, known, step) for gram in grams] for step in range(start + 1, end))
        return Segment(start, end, name, history, tuple(tuple(chain.from_iterable(fitted)) for fitted in parts))


def require_plannable(operators: Mapping[str, OperatorFacts]) -> None:
    """Raise `CalibrationError` if an operator looks back on more computed steps than the graph's nodes know."""
    too_far = [name for name, facts in operators.items() if facts.looks_back > 1]
    if too_far:
        raise CalibrationError(
            f"plans are made for operators that look back one computed step at most; {too_far[0]} looks back "
            f"{operators[too_far[0]].looks_back}; leave it out"
        )
