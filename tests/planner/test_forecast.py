import numpy as np
import pytest

from lemica_planner.forecast import fit_weights


def test_weights_are_least_squares():
    values = np.random.default_rng(0).normal(size=(4, 50))
    weights = fit_weights(values @ values.T, (0, 1), 3)
    assert weights == pytest.approx(np.linalg.lstsq(values[:2].T, values[3], rcond=None)[0], abs=1e-3)


def test_values_that_are_all_zero_are_reused():
    assert fit_weights(np.zeros((4, 4)), (0, 2), 3) == (0.0, 1.0)
