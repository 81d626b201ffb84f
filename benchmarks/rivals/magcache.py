"""MagCache's rule (arXiv 2506.09045) on the engine's step cache, as diffusers' ``MagCacheHeadHook`` has it.

The residual of a step is about that of the step before times a ratio that hardly depends on the prompt. A skipped
step's error is one minus the product of the ratios since the last computed step, and errors add up. The ratios are
known beforehand, so the rule is a list of steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.rivals.plans import reused
from benchmarks.rivals.rival import Rival


class Setting(NamedTuple):
    """What the rule leaves open: the budget of error, the longest gap, the share of first steps that are computed."""

    threshold: float
    max_skip: int
    retention: float


RECOMMENDED = Setting(0.06, 3, 0.2)  # the defaults of diffusers' MagCacheConfig
SETTINGS = (
    RECOMMENDED,
    Setting(0.12, 4, 0.2),
    Setting(0.12, 4, 0.1),
    Setting(0.24, 6, 0.1),
    Setting(0.48, 8, 0.1),
    Setting(0.48, 8, 0.06),
)


def mag_cache(ratios: Sequence[float]) -> Iterator[Rival]:
    """Yield the rule at every setting, with ratios that were measured on this model."""
    for setting in SETTINGS:
        name = f"{setting.threshold:g}/{setting.max_skip}/{setting.retention:g}"
        yield reused("magcache", name, mag_steps(ratios, setting), len(ratios), best=setting == RECOMMENDED)


def mag_steps(ratios: Sequence[float], setting: Setting) -> tuple[int, ...]:
    """Return the steps that the rule computes.

    Examples
    --------
    >>> mag_steps([1.0, 1.0, 0.9, 0.9, 0.9], Setting(threshold=0.25, max_skip=3, retention=0.4))
    (0, 1, 3)
    """
    kept = int(setting.retention * len(ratios) + 0.5)
    computed, product, error, skipped = [], 1.0, 0.0, 0
    for step, ratio in enumerate(ratios):
        if step >= kept:
            product, skipped = product * ratio, skipped + 1
            error += abs(1 - product)
        allowed = error <= setting.threshold and skipped <= setting.max_skip
        if step == 0 or step < kept or not allowed:
            computed.append(step)
            product, error, skipped = 1.0, 0.0, 0
    return tuple(computed)
