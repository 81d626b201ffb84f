"""Plans that go to another number of steps."""

import doctest

import numpy as np
import pytest

from benchmarks.paper import mapping
from benchmarks.paper.mapping import map_steps
from lemica_planner import published_plan, uniform_steps


def random_plan(rng, num_steps, budget):
    inner = 1 + rng.choice(num_steps - 2, budget - 2, replace=False)
    return (0, *sorted(inner.tolist()), num_steps - 1)


def test_the_same_schedule_keeps_the_plan():
    rng = np.random.default_rng(0)
    for _ in range(50):
        steps = random_plan(rng, 50, int(rng.integers(2, 51)))
        assert map_steps(steps, 50, len(steps)) == steps


def test_every_result_is_a_plan_of_its_budget():
    rng = np.random.default_rng(1)
    for _ in range(300):
        source = random_plan(rng, 50, int(rng.integers(2, 51)))
        num_steps = int(rng.integers(2, 120))
        budget = int(rng.integers(2, num_steps + 1))
        mapped = map_steps(source, num_steps, budget)
        assert (mapped[0], mapped[-1], len(mapped)) == (0, num_steps - 1, budget)
        assert (np.diff(mapped) >= 1).all()


@pytest.mark.parametrize(("num_steps", "budget"), [(30, 6), (100, 20), (50, 25)])
def test_uniform_stays_uniform(num_steps, budget):
    mapped = map_steps(uniform_steps(50, 10), num_steps, budget)
    assert np.abs(np.subtract(mapped, uniform_steps(num_steps, budget))).max() <= 0.5 * num_steps / 50 + 1


@pytest.mark.parametrize("length", [30, 40, 60, 100])
def test_a_published_plan_keeps_its_shares_of_the_schedule(length):
    steps = published_plan("Wan2.1-T2V-1.3B").resolve(20).steps
    mapped = np.array(map_steps(steps, length, 20 * length // 50))
    shares = np.interp(np.linspace(0, 1, len(mapped)), np.linspace(0, 1, 20), np.array(steps) / 49)
    assert np.abs(mapped / (length - 1) - shares).max() <= 1.5 / length


@pytest.mark.parametrize("budget", [1, 31])
def test_a_budget_that_cannot_be_is_refused(budget):
    with pytest.raises(ValueError, match=f"between 2 and the 30 steps; got {budget}"):
        map_steps((0, 2, 5), 30, budget)


def test_the_examples_hold():
    assert doctest.testmod(mapping).failed == 0
