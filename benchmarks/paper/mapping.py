"""Take a plan to another number of steps by position: the share of the schedule at which it computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["map_steps"]


def map_steps(steps: Sequence[int], num_steps: int, budget: int) -> tuple[int, ...]:
    """Return `budget` of `num_steps` steps, spread over the schedule as `steps` are over theirs.

    The k-th computed step stands at a share of the schedule; between them the share runs on straight lines over
    k / (B - 1), from which the new steps are read. Two that would fall on one step move apart by as little as that
    takes. The same number of steps and the same budget give the same plan.

    Parameters
    ----------
    steps : sequence of int
        Computed steps, ascending from 0 to T - 1.
    num_steps, budget : int
        Of the result, ``2 <= budget <= num_steps``.

    Examples
    --------
    >>> map_steps((0, 1, 2, 3, 6, 9), 20, 6)
    (0, 2, 4, 6, 13, 19)
    >>> map_steps((0, 1, 2, 9), 10, 6)
    (0, 1, 2, 3, 5, 9)
    """
    if not 2 <= budget <= num_steps:
        raise ValueError(f"budget must lie between 2 and the {num_steps} steps; got {budget}")
    shares = np.asarray(steps, np.float64) / steps[-1]
    wanted = np.interp(np.linspace(0, 1, budget), np.linspace(0, 1, len(steps)), shares)
    places = np.floor(wanted * (num_steps - 1) + 0.5 + 1e-9).astype(int)  # halves up; interpolation rounds
    order = np.arange(budget)
    rising = np.maximum.accumulate(places - order) + order  # each at least one after the one before it
    last = num_steps - 1 - order[::-1]  # room for those that follow
    return tuple(np.minimum(rising, last).tolist())
