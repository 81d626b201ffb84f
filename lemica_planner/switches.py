"""Steps at which a model changes its weights: they are always computed, and nothing is reused across them."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

__all__ = ["feasible_range", "may_look_back", "may_skip"]


def may_skip(start: int, end: int, switches: Collection[int]) -> bool:
    """Return whether the steps between `start` and `end` may reuse what was computed up to `start`."""
    return not any(start < switch < end for switch in switches)


def may_look_back(before: int, start: int, switches: Collection[int]) -> bool:
    """Return whether what was computed at `before` belongs to the same weights as what was computed at `start`."""
    return not any(before < switch <= start for switch in switches)


def feasible_range(num_steps: int, max_span: int, switches: Collection[int] = ()) -> range:
    """Return the budgets that have a path when every edge up to `max_span` is allowed that skips no switch.

    Examples
    --------
    >>> feasible_range(11, 5), feasible_range(11, 5, [3])
    (range(3, 12), range(4, 12))
    """
    stops = sorted({0, *switches, num_steps - 1})
    return range(sum(-(-(end - start) // max_span) for start, end in pairwise(stops)) + 1, num_steps + 1)
