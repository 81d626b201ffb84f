import numpy as np
import pytest

from lemica_planner import CalibrationError
from lemica_planner.risk import risk_measure

ERRORS = np.array([[1.0, 4.0], [2.0, 4.0], [3.0, 4.0], [10.0, 4.0]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", [4.0, 4.0]),
        ("quantile:0.5", [2.5, 4.0]),
        ("quantile:1", [10.0, 4.0]),
        ("cvar:0", [4.0, 4.0]),
        ("cvar:0.5", [6.5, 4.0]),
        ("cvar:0.75", [10.0, 4.0]),
        ("mean+0", [4.0, 4.0]),
        ("mean+2", [4.0 + 2 * np.std([1, 2, 3, 10], ddof=1) / 2, 4.0]),
    ],
)
def test_it_reduces_over_samples(name, expected):
    np.testing.assert_allclose(risk_measure(name, ERRORS), expected)


def test_one_sample_has_no_standard_error():
    np.testing.assert_array_equal(risk_measure("mean+3", ERRORS[:1]), ERRORS[0])


@pytest.mark.parametrize("name", ["", "luck", "mean:1", "mean+", "mean+x", "mean+-1", "quantile:2", "cvar:1", "cvar"])
def test_others_are_refused(name):
    with pytest.raises(CalibrationError, match="the risk must be mean"):
        risk_measure(name, ERRORS)
