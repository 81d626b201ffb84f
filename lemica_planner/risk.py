"""How the errors of an edge over many samples become one weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lemica_planner.errors import CalibrationError

__all__ = ["require_risk", "risk_measure"]


def risk_measure(name: str, errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reduce errors over samples, the first axis.

    Parameters
    ----------
    name : str
        ``mean`` (arXiv 2511.00090, equation 4); ``quantile:Q``, the Q-quantile; ``cvar:Q``, the mean of what lies at or
        above it (Rockafellar and Uryasev, 2000); ``mean+K``, the mean plus K of its standard errors.
    errors : ndarray, shape (samples, ...)

    Raises
    ------
    CalibrationError
        If there is no such measure.

    Examples
    --------
    >>> errors = np.array([[1.0], [2.0], [3.0], [10.0]])
    >>> [float(risk_measure(name, errors)[0]) for name in ("mean", "quantile:0.5", "cvar:0.75")]
    [4.0, 2.5, 10.0]
    """
    if name == "mean":
        return _mean(errors)
    kind, mark, text = name.partition("+") if name.startswith("mean+") else name.partition(":")
    try:
        number = float(text)
    except ValueError:
        number = np.nan
    if kind == "mean" and mark == "+" and 0 <= number < np.inf:
        deviation = errors.std(axis=0, ddof=1) if len(errors) > 1 else 0.0
        return np.asarray(_mean(errors) + number * deviation / np.sqrt(len(errors)))
    if kind == "quantile" and 0 <= number <= 1:
        return np.asarray(np.quantile(errors, number, axis=0))
    if kind == "cvar" and 0 <= number < 1:
        worst = np.sort(errors, axis=0)[int(np.floor(number * len(errors))) :]
        return _mean(worst)
    raise CalibrationError(
        f"the risk must be mean, quantile:Q, cvar:Q (Q from 0 to 1) or mean+K (K standard errors); got {name!r}"
    )


def require_risk(name: str) -> None:
    """Raise `CalibrationError` if there is no measure of that name."""
    risk_measure(name, np.zeros((2, 1)))


def _mean(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(errors.mean(axis=0))
