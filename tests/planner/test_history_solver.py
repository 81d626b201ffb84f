from itertools import combinations, pairwise

import numpy as np
import pytest

from lemica_planner import ErrorGraph, solve_all
from lemica_planner.history_solver import shortest_with_history, solve_with_history


def random_weights(rng, steps, span, levels):
    """Return weights with ties and forbidden edges."""
    weights = rng.integers(1, levels, (span + 1, steps, steps)).astype(float)
    weights[rng.random(weights.shape) < 0.2] = np.inf
    for start in range(steps):
        for end in range(steps):
            if end == start + 1:
                weights[:, start, end] = 0
            elif not start < end <= start + span:
                weights[:, start, end] = np.inf
    return weights


def by_brute_force(weights, budget, cost=lambda errors: sorted(errors, reverse=True)):
    steps = weights.shape[1]
    best = None
    for inner in combinations(range(1, steps - 1), budget - 2):
        path = (0, *inner, steps - 1)
        gaps = [0, *(end - start for start, end in pairwise(path))]
        if max(gaps) >= len(weights):
            continue
        errors = [weights[gap, i, j] for gap, (i, j) in zip(gaps, pairwise(path), strict=False)]
        if np.isfinite(max(errors)) and (best is None or (cost(errors), path) < best):
            best = (cost(errors), path)
    return best and best[1]


@pytest.mark.parametrize("seed", range(40))
def test_it_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(2, 10))
    span = int(rng.integers(1, steps))
    weights = random_weights(rng, steps, span, levels=int(rng.integers(2, 50)))
    expected = {budget: by_brute_force(weights, budget) for budget in range(2, steps + 1)}
    assert solve_with_history(weights) == {budget: path for budget, path in expected.items() if path}


@pytest.mark.parametrize("seed", range(20))
def test_sums_equal_brute_force(seed):
    rng = np.random.default_rng(seed)
    steps, span = int(rng.integers(3, 10)), int(rng.integers(2, 9))
    weights = random_weights(rng, steps, min(span, steps - 1), levels=int(rng.integers(2, 50)))
    expected = {budget: by_brute_force(weights, budget, cost=sum) for budget in range(2, steps + 1)}
    assert shortest_with_history(weights) == {budget: path for budget, path in expected.items() if path}


def test_more_weights_than_sixteen_bits_can_rank():
    steps, span = 110, 30
    rng = np.random.default_rng(0)
    plain = random_weights(rng, steps, span, levels=3)[0]
    reuse = np.isfinite(plain) & (plain > 0)
    plain[reuse] = rng.random(int(reuse.sum()))
    weights = plain * np.linspace(1, 1 + 1e-9, span + 1)[:, None, None]  # many weights, the same order of edges
    assert len(np.unique(weights)) > 1 << 16
    expected, found = solve_all(ErrorGraph(plain)), solve_with_history(weights)
    assert {budget: found[budget] for budget in (10, 50)} == {budget: expected[budget].steps for budget in (10, 50)}


@pytest.mark.parametrize("seed", range(5))
def test_without_history_it_equals_the_plain_solver(seed):
    weights = random_weights(np.random.default_rng(seed), 24, 6, levels=300)[:1].repeat(7, axis=0)
    plain = solve_all(ErrorGraph(weights[0]))
    assert solve_with_history(weights) == {budget: solution.steps for budget, solution in plain.items()}
