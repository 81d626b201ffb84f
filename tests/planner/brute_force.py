"""Oracles: every path of a small graph, judged one by one; and random graphs full of ties."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from lemica_planner import ErrorGraph

Cost = Callable[[list[float]], Any]


def leximax(errors: list[float]) -> list[float]:
    return sorted(errors, reverse=True)


def exact_sum(errors: list[float]) -> Fraction:
    return sum(map(Fraction, errors), Fraction(0))


def best_paths(graph: ErrorGraph, cost: Cost) -> dict[int, tuple[int, ...]]:
    """Return the best path of every feasible budget; ties go to the smallest tuple of steps."""
    found = {}
    for budget in range(2, graph.num_steps + 1):
        judged = [(cost(errors), steps) for steps, errors in paths(graph, budget)]
        if judged:
            found[budget] = min(judged)[1]
    return found


def paths(graph: ErrorGraph, budget: int) -> Iterator[tuple[tuple[int, ...], list[float]]]:
    last = graph.num_steps - 1
    for inner in combinations(range(1, last), budget - 2):
        steps = (0, *inner, last)
        errors = [float(graph.weights[edge]) for edge in pairwise(steps)]
        if np.isfinite(errors).all():
            yield steps, errors


def random_graph(rng: np.random.Generator, num_steps: int, values: int, forbidden: float) -> ErrorGraph:
    """Return a graph whose weights are few distinct numbers, so that many paths tie, with some edges missing."""
    scale = rng.choice([0.1, 1 / 3, 1e-12, 7.0])
    weights = rng.integers(0, values, (num_steps, num_steps)) * scale
    weights[rng.random(weights.shape) < forbidden] = np.inf
    weights[np.arange(num_steps - 1), np.arange(1, num_steps)] = 0
    return ErrorGraph(weights)


def random_graphs(seed: int, count: int) -> Iterator[ErrorGraph]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        num_steps = int(rng.integers(2, 10))
        yield random_graph(rng, num_steps, int(rng.choice([1, 2, 3, 5, 50])), float(rng.choice([0, 0.2, 0.6, 0.9])))
