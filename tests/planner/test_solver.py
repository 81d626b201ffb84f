import math
import pickle
from itertools import pairwise

import numpy as np
import pytest

from lemica_planner import (
    ErrorGraph,
    InfeasibleBudgetError,
    InvalidGraphError,
    Solution,
    evaluate,
    feasible_budgets,
    shortest_path,
    shortest_path_all,
    solve,
    solve_all,
    uniform_steps,
)
from lemica_planner.solver import _smallest
from tests.planner.brute_force import best_paths, exact_sum, leximax, paths, random_graphs


def dense(num_steps, weight):
    """Return the graph whose edge (i, j) weighs ``weight(i, j)``."""
    edges = [[weight(i, j) if j > i + 1 else 0.0 for j in range(num_steps)] for i in range(num_steps)]
    return ErrorGraph(np.array(edges, float))


@pytest.mark.parametrize("seed", range(8))
def test_minimax_equals_brute_force(seed):
    for graph in random_graphs(seed, 400):
        best = best_paths(graph, leximax)
        solved = solve_all(graph)
        assert {budget: found.steps for budget, found in solved.items()} == best
        for budget, found in solved.items():
            assert list(found.errors) == leximax([graph.weights[edge] for edge in pairwise(found.steps)])
            assert len(found.errors) == budget - 1


@pytest.mark.parametrize("seed", range(8))
def test_shortest_equals_brute_force(seed):
    for graph in random_graphs(100 + seed, 400):
        best = best_paths(graph, exact_sum)
        assert {budget: found.steps for budget, found in shortest_path_all(graph).items()} == best


def test_one_budget_equals_all_budgets():
    for graph in random_graphs(7, 300):
        minimax, shortest = solve_all(graph), shortest_path_all(graph)
        assert tuple(minimax) == tuple(shortest) == feasible_budgets(graph)
        for budget in minimax:
            assert solve(graph, budget) == minimax[budget]
            assert shortest_path(graph, budget) == shortest[budget]


def test_infeasible_budgets_are_exactly_those_without_a_path():
    for graph in random_graphs(8, 200):
        feasible = feasible_budgets(graph)
        for budget in range(-1, graph.num_steps + 3):
            if budget in feasible:
                continue
            with pytest.raises(InfeasibleBudgetError, match=f"smallest feasible budget is {feasible[0]}") as caught:
                solve(graph, budget)
            assert caught.value.smallest == feasible[0]
            assert not 2 <= budget <= graph.num_steps or not list(paths(graph, budget))


def test_a_gap_between_feasible_budgets_names_the_nearest():
    graph = dense(6, lambda i, j: 1.0 if (i, j) == (0, 5) else math.inf)
    assert feasible_budgets(graph) == (2, 6)
    with pytest.raises(InfeasibleBudgetError, match="nearest to 4: 2, 6"):
        shortest_path(graph, 4)


def test_infeasible_error_survives_pickling():
    error = pickle.loads(pickle.dumps(InfeasibleBudgetError(3, [2, 6])))
    assert (error.budget, error.smallest, str(error)) == (3, 2, str(InfeasibleBudgetError(3, [2, 6])))


def test_the_larger_second_error_loses():
    """Both paths have a worst error of 5; the second worst decides, although the sums say otherwise."""
    weights = {(1, 4): 5.0, (4, 7): 3.0, (0, 3): 5.0, (3, 5): 2.0, (5, 7): 2.0}
    graph = dense(8, lambda i, j: weights.get((i, j), math.inf))
    assert solve(graph, 4) == Solution((0, 3, 5, 7), (5.0, 2.0, 2.0))
    assert shortest_path(graph, 4) == Solution((0, 1, 4, 7), (5.0, 3.0, 0.0))


def test_two_steps():
    graph = ErrorGraph(np.zeros((2, 2)))
    assert solve_all(graph) == shortest_path_all(graph) == {2: Solution((0, 1), (0.0,))}


def test_budget_two_is_the_one_edge():
    graph = dense(5, lambda i, j: float(j - i))
    assert solve(graph, 2) == Solution((0, 4), (4.0,))


def test_the_full_budget_reuses_nothing():
    graph = dense(6, lambda i, j: 9.0)
    assert solve(graph, 6) == Solution(tuple(range(6)), (0.0,) * 5)


def test_equal_weights_give_the_smallest_steps():
    assert solve(dense(7, lambda i, j: 1.0), 4).steps == (0, 1, 2, 6)
    assert solve(dense(7, lambda i, j: 0.0), 4).steps == (0, 1, 2, 6)


def test_only_direct_edges():
    assert list(solve_all(dense(4, lambda i, j: math.inf))) == [4]


def test_results_are_plain_python():
    found = solve(dense(5, lambda i, j: float(j - i)), np.int64(3))
    assert {type(step) for step in found.steps} == {int}
    assert {type(error) for error in found.errors} == {float}
    assert (found.budget, found.worst, found.total) == (3, 2.0, 4.0)


def test_a_budget_must_be_an_integer():
    with pytest.raises(TypeError):
        solve(dense(5, lambda i, j: 1.0), 3.0)


def test_sums_are_compared_exactly():
    """In floats 1e16 + 1 equals 1e16, and the tie would go to (0, 2, 4, 5)."""
    weights = {(0, 2): 1e16, (2, 4): 1.0, (0, 3): 1e16}
    graph = dense(6, lambda i, j: weights.get((i, j), math.inf))
    assert shortest_path(graph, 4).steps == (0, 3, 4, 5)


def test_extreme_weights():
    tiny, huge = 5e-324, 1.7e308
    graph = dense(6, lambda i, j: tiny if j - i == 2 else huge)
    assert {at: found.steps for at, found in shortest_path_all(graph).items()} == best_paths(graph, exact_sum)
    assert {at: found.steps for at, found in solve_all(graph).items()} == best_paths(graph, leximax)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_byte_strings_compare_like_sequences(dtype):
    """With zero bytes in every place, which byte strings are known to trip over."""
    rng = np.random.default_rng(0)
    values = np.array([0, 1, 255, 256, 65535, 65536, 2**24, 2**31], np.uint64)
    rows = values[rng.integers(0, 8 if dtype == np.uint32 else 3, (500, 6, 4))].astype(dtype)
    chosen, best = _smallest(rows)
    expected = [min(range(6), key=lambda at, block=block: block[at].tolist()) for block in rows]
    assert chosen.tolist() == expected
    assert (best == rows[np.arange(500), expected]).all()


def slow_minimax(graph):
    """Return the best path of every budget from node to node, with plain Python lists as costs."""
    last = graph.num_steps - 1
    best = {last: {1: ([], (last,))}}
    for start in range(last - 1, -1, -1):
        here = best[start] = {}
        for end in range(start + 1, last + 1):
            for nodes, (errors, steps) in best[end].items() if np.isfinite(graph.weights[start, end]) else ():
                candidate = (sorted([*errors, graph.weights[start, end]], reverse=True), (start, *steps))
                here[nodes + 1] = min(here.get(nodes + 1, candidate), candidate)
    return {budget: steps for budget, (_, steps) in sorted(best[0].items())}


@pytest.mark.parametrize(("num_steps", "span", "values"), [(34, 33, 10**6), (34, 5, 10**6), (34, 33, 4), (60, 4, 300)])
def test_larger_graphs_equal_a_plain_program(num_steps, span, values):
    rng = np.random.default_rng(num_steps + span + values)
    weights = rng.integers(0, values, (num_steps, num_steps)) / 7
    weights[np.subtract.outer(np.arange(num_steps), np.arange(num_steps)) < -span] = np.inf
    weights[np.arange(num_steps - 1), np.arange(1, num_steps)] = 0
    graph = ErrorGraph(weights)
    assert {budget: found.steps for budget, found in solve_all(graph).items()} == slow_minimax(graph)


def test_blocks_of_rows_change_nothing(monkeypatch):
    graphs = list(random_graphs(11, 100))
    whole = [solve_all(graph) for graph in graphs]
    monkeypatch.setattr("lemica_planner.solver._BLOCK_BYTES", 1)
    assert [solve_all(graph) for graph in graphs] == whole


@pytest.mark.parametrize(
    ("num_steps", "budget", "steps"),
    [(2, 2, (0, 1)), (5, 5, (0, 1, 2, 3, 4)), (5, 2, (0, 4)), (8, 3, (0, 4, 7)), (50, 4, (0, 16, 33, 49))],
)
def test_uniform_steps(num_steps, budget, steps):
    assert uniform_steps(num_steps, budget) == steps


def test_uniform_steps_always_ascend():
    for num_steps in range(2, 40):
        for budget in range(2, num_steps + 1):
            steps = uniform_steps(num_steps, budget)
            assert len(set(steps)) == budget
            assert (steps[0], steps[-1]) == (0, num_steps - 1)
            assert list(steps) == sorted(steps)


@pytest.mark.parametrize("budget", [1, 6])
def test_uniform_steps_refuse_impossible_budgets(budget):
    with pytest.raises(ValueError, match=f"between 2 and the 5 steps; got {budget}"):
        uniform_steps(5, budget)


def test_evaluate_reports_forbidden_edges_as_infinite():
    graph = dense(5, lambda i, j: 1.0 if j - i == 2 else math.inf)
    assert evaluate(graph, [0, 3, 4]).errors == (math.inf, 0.0)
    assert evaluate(graph, [0, 2, 4]).errors == (1.0, 1.0)


@pytest.mark.parametrize("steps", [(), (0,), (0, 3), (1, 4), (0, 2, 2, 4), (0, 3, 2, 4)])
def test_evaluate_refuses_what_is_no_path(steps):
    with pytest.raises(InvalidGraphError, match="ascend strictly from 0 to 4"):
        evaluate(dense(5, lambda i, j: 1.0), steps)
