"""The ways to fill in a skipped step, by the names that plans use.

A plan is only valid for the operators that it was calibrated with, and the same code serves and calibrates.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from lemica_planner.plan_entry import Fill, PlanEntry

Source = Literal["residual", "output", "noise"]


@dataclass(frozen=True)
class Operator:
    """What a skipped step is made of.

    Attributes
    ----------
    source : {"residual", "output", "noise"}
        ``residual``: what the block stack added, each branch for itself; stem and head run (the paper's,
        arXiv 2511.00090, 3.1). ``output``: the guided output of the model; nothing of the model runs. ``noise``: the
        noise that the output says is in the latents; nothing runs either. To hold the noise is to hold the clean
        sample: with DDIM or Euler it makes of several steps one bigger step, and caches nothing.
    order : int
        Degree of the polynomial through the last ``order + 1`` computed steps, in the sampler's own time
        (`lemica_planner.sampler_time`); 0 takes the last value as it is.
    fits : tuple of str
        If the weights of those ``order + 1`` values come from the plan, fitted in calibration, and not from the
        polynomial: what has weights of its own, keys of `lemica_planner.ReplaySession.grams`. ``residual``: the
        residuals of both branches alike. ``cond`` and ``guidance``: the conditional residual, and what it differs by
        from the unconditional one. Guidance multiplies the second by its scale, so the two deserve their own fits.
    """

    source: Source
    order: int
    fits: tuple[str, ...] = ()


SPLIT = "residual-split"
_SOURCES: tuple[Source, ...] = ("residual", "output", "noise")

OPERATORS = {
    f"{source}{suffix}": Operator(source, order, (source,) * is_fitted)
    for source in _SOURCES
    for suffix, order, is_fitted in (
        ("", 0, False),
        ("-linear", 1, False),
        ("-quadratic", 2, False),
        ("-fitted", 1, True),
    )
} | {SPLIT: Operator("residual", 1, ("cond", "guidance"))}


def depths(operators: Collection[str]) -> dict[Source, int]:
    """Return of how many computed steps the values of each source are kept for these operators."""
    chosen = [OPERATORS[name] for name in operators]
    return {source: max((each.order + 1 for each in chosen if each.source == source), default=0) for source in _SOURCES}


def describe_wrong_weights(entry: PlanEntry, step: int, fill: Fill) -> str | None:
    """Return what is wrong with the weights of a skipped step; None if its operator can use them."""
    operator = OPERATORS[fill.operator]
    fits = len(operator.fits)
    values = range(1, min(operator.order + 1, bisect_right(entry.steps, step)) + 1) if fits else (0,)
    allowed = [fits * count for count in values]
    if len(fill.weights) in allowed:
        return None
    return (
        f"at step {step} of budget {entry.budget}, {fill.operator!r} has {len(fill.weights)} weights; allowed are "
        f"{' or '.join(map(str, allowed))}: calibrate again"
    )


def extrapolation_weights(known: Sequence[float], wanted: float) -> list[float]:
    """Return the weights of values at the times `known` in their polynomial's value at `wanted`.

    Lagrange's form. One time gives the weight 1, two a straight line, three a parabola.

    Examples
    --------
    >>> extrapolation_weights([1.0, 0.5], 0.0)
    [-1.0, 2.0]
    """
    weights = []
    for at in known:
        weight = 1.0
        for other in known:
            if other != at:
                weight *= (wanted - other) / (at - other)
        weights.append(weight)
    return weights
