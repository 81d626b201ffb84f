"""TaylorSeer's rule (arXiv 2503.06923) on the residual of the whole block stack.

A fixed interval between computed steps, and at the others the Taylor series whose derivatives are differences of the
computed values. Interval, warm-up and differences are those of diffusers' ``TaylorSeerCacheConfig``, whose own hooks
forecast the output of every module instead (`stock`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals.rival import Rival, follow
from lemica_planner import Fill

WARM_UP = 3
INTERVALS = (2, 3, 5, 8)
RECOMMENDED_INTERVAL = 5
_OPERATORS = {1: "residual-linear", 2: "residual-quadratic"}  # how many values the step cache keeps


def on_residual(num_steps: int) -> Iterator[Rival]:
    """Yield both orders at every interval; 5 and order 1 are diffusers' defaults."""
    for order in _OPERATORS:
        for interval in INTERVALS:
            yield _rival(num_steps, interval, order)


def _rival(num_steps: int, interval: int, order: int) -> Rival:
    computed = taylor_steps(num_steps, interval)
    reuse = forecasts(num_steps, computed, order)
    run = partial(follow, computed=frozenset(computed), reuse=reuse)
    recipe = f"{computed} {sorted(reuse.items())}"
    return Rival(f"taylorseer O{order}", f"N={interval}", recipe, run, interval == RECOMMENDED_INTERVAL)


def taylor_steps(num_steps: int, interval: int, warm_up: int = WARM_UP) -> tuple[int, ...]:
    """Return the steps that diffusers' hook computes.

    Examples
    --------
    >>> taylor_steps(15, 5)
    (0, 1, 2, 4, 9, 14)
    """
    return tuple(step for step in range(num_steps) if step < warm_up or (step - warm_up - 1) % interval == 0)


def forecasts(num_steps: int, computed: Sequence[int], order: int) -> dict[int, Fill]:
    """Return the weights of the last ``order + 1`` computed values at every other step."""
    reuse = {}
    for step in sorted(set(range(num_steps)) - set(computed)):
        known = [at for at in computed if at < step][-order - 1 :]
        reuse[step] = Fill(_OPERATORS[order], tuple(taylor_weights(known, step, order).tolist()))
    return reuse


def taylor_weights(known: Sequence[int], wanted: int, order: int) -> NDArray[np.float64]:
    """Return the weights of the values at the steps `known`, ascending, in the series at step `wanted`.

    Each derivative is the difference of the one below it between the last two computed steps, over their distance
    (arXiv 2503.06923, as diffusers' ``TaylorSeerState`` has it for uneven steps).

    Examples
    --------
    >>> taylor_weights([0, 2], 3, order=1)
    array([-0.5,  1.5])
    """
    factors: list[NDArray[np.float64]] = []
    for index, row in enumerate(np.eye(len(known))):
        fresh = [row]
        for older in factors[:order]:
            fresh.append((fresh[-1] - older) / (known[index] - known[index - 1]))
        factors = fresh
    ahead = wanted - known[-1]
    terms = [factor * ahead**power / math.factorial(power) for power, factor in enumerate(factors)]
    return np.asarray(sum(terms))
