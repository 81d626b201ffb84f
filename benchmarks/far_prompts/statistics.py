"""How well a number warns of another: rank correlation, area under the ROC curve, and intervals over prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["area_under_curve", "by_prompt", "rank_correlation", "ratio_interval"]

_DRAWS = 2000
Score = Callable[[NDArray[np.float64], NDArray[np.float64]], float]


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation; NaN if one of them is constant.

    Examples
    --------
    >>> rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([0.1, 0.2, 0.3]))
    1.0
    """
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1].round(12))


def area_under_curve(signal: NDArray[np.float64], is_bad: NDArray[np.float64]) -> float:
    """Return the share of pairs of a bad and a good one in which the bad one's signal is larger; ties count half.

    This is the area under the ROC curve (Mann and Whitney, 1947); NaN if all are bad or all are good.

    Examples
    --------
    >>> area_under_curve(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 1.0]))
    1.0
    """
    bad = is_bad > 0
    pairs = int(bad.sum()) * int((~bad).sum())
    if not pairs:
        return float("nan")
    above = _ranks(signal)[bad].sum() - bad.sum() * (bad.sum() + 1) / 2
    return float(above / pairs)


def by_prompt(
    score: Score, signal: NDArray[np.float64], truth: NDArray[np.float64], prompts: Sequence[str]
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a score, drawing whole prompts with all their seeds."""
    names = np.array(prompts)
    members = [np.flatnonzero(names == name) for name in dict.fromkeys(prompts)]
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(_DRAWS // 4):
        rows = np.concatenate([members[at] for at in rng.integers(0, len(members), len(members))])
        scores.append(score(signal[rows], truth[rows]))
    low, high = np.nanquantile(scores, (0.025, 0.975))
    return float(low), float(high)


def ratio_interval(above: NDArray[np.float64], below: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the geometric mean of the videos' ratios, and its 95 % bootstrap interval."""
    logs = np.log(above) - np.log(below)
    picks = np.random.default_rng(0).integers(0, len(logs), (_DRAWS, len(logs)))
    low, high = np.quantile(logs[picks].mean(axis=1), (0.025, 0.975))
    return float(np.exp(logs.mean())), float(np.exp(low)), float(np.exp(high))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[places]
    return ranks
