from itertools import combinations, pairwise
from time import process_time

import numpy as np
import pytest

from lemica_planner import CachePlan, PlanEntry, Provenance
from lemica_planner.continuations import Continuations
from lemica_planner.history_solver import Suffixes, solve_with_history
from tests.planner.brute_force import random_graph

STEPS = 9


def history_plan(rng, span=4):
    """Return a plan whose edges' errors depend on the gap before them, and the weights behind it."""
    weights = rng.integers(1, 60, (span + 1, STEPS, STEPS)).astype(float)
    reach = np.subtract.outer(np.arange(STEPS), np.arange(STEPS)).T
    weights[:, (reach < 1) | (reach > span)] = np.inf
    weights[:, reach == 1] = 0
    entries = {budget: entry(weights, steps) for budget, steps in solve_with_history(weights).items()}
    return CachePlan(provenance=Provenance(num_inference_steps=STEPS), entries=entries), weights


def entry(weights, steps):
    fills = {step: (float(start), float(step)) for start, end in pairwise(steps) for step in range(start + 1, end)}
    operators = tuple(f"from-{start}" for start in steps[:-1])
    return PlanEntry(steps, tuple(sorted(errors(weights, steps), reverse=True)), operators, fills)


def errors(weights, steps):
    gaps = [0, *(end - start for start, end in pairwise(steps))]
    return [float(weights[gap, start, end]) for gap, (start, end) in zip(gaps, pairwise(steps), strict=False)]


def edges(steps):
    gaps = [0, *(end - start for start, end in pairwise(steps))]
    return [(gap, *edge) for gap, edge in zip(gaps, pairwise(steps), strict=False) if edge[1] > edge[0] + 1]


def bounds(plan):
    found = {}
    for each in plan.entries.values():
        for edge in edges(each.steps):
            found[edge] = min(found.get(edge, np.inf), each.predicted_error)
    return found


def all_ways(beginning, known):
    """Yield every path of known edges that begins so, by its total and the bounds of its errors."""
    at = beginning[-1]
    for count in range(STEPS - at):
        for inner in combinations(range(at + 1, STEPS - 1), count):
            steps = (*beginning, *inner, STEPS - 1) if at < STEPS - 1 else tuple(beginning)
            worst = [known.get(edge) for edge in edges(steps)]
            if None not in worst:
                yield len(steps), sorted((known[edge] for edge in edges(steps) if edge[1] >= at), reverse=True), steps


@pytest.mark.parametrize("seed", range(12))
def test_every_way_on_is_the_best_of_known_edges_by_brute_force(seed):
    plan, _ = history_plan(np.random.default_rng(seed))
    ways, known = Continuations(plan, looks_back=1), bounds(plan)
    floor = min(plan.entries)
    limit = plan.entries[floor].predicted_error
    for each in plan.entries.values():
        for length in range(1, each.budget):
            beginning = each.steps[:length]
            best = {}
            for total, worst, steps in all_ways(beginning, known):
                if total >= floor and max(worst, default=0) <= limit:
                    padded = worst + [0] * (STEPS - len(worst))
                    best[total] = min(best.get(total, (padded, steps)), (padded, steps))
            assert ways.totals(beginning, floor=floor) == sorted(best)
            for total, (_, steps) in best.items():
                assert ways.path(beginning, total).steps == steps


@pytest.mark.parametrize("seed", range(8))
def test_where_the_plans_paths_lead_on_it_is_what_the_whole_graph_gives(seed):
    """The suffix of another budget's best path that passes through the same state is the best there is."""
    plan, weights = history_plan(np.random.default_rng(seed))
    whole = Suffixes(weights)
    for each in plan.entries.values():
        for before, at in pairwise(range(each.budget)):
            step, gap = each.steps[at], each.steps[at] - each.steps[before]
            assert whole.path(step, gap, each.budget - at) == each.steps[at:]


@pytest.mark.parametrize("seed", range(8))
def test_predicted_errors_are_upper_bounds_and_never_beyond_the_floors(seed):
    plan, weights = history_plan(np.random.default_rng(seed))
    ways, known = Continuations(plan, looks_back=1), bounds(plan)
    for floor in plan.entries:
        limit = plan.entries[floor].predicted_error
        for each in plan.entries.values():
            if each.budget < floor or each.predicted_error > limit:
                continue
            for length in range(1, each.budget):
                for total in ways.totals(each.steps[:length], floor=floor):
                    path = ways.path(each.steps[:length], total)
                    assert floor <= path.budget == total
                    assert max(errors(weights, path.steps)) <= path.predicted_error <= limit
                    ahead = [known[edge] for edge in edges(path.steps) if edge[1] >= each.steps[length - 1]]
                    assert ways.worst_ahead(each.steps[:length], total) == max(ahead, default=0.0)


def test_skipped_steps_are_filled_in_as_the_edges_path_says():
    plan, _ = history_plan(np.random.default_rng(3))
    ways = Continuations(plan, looks_back=1)
    beginning = plan.entries[6].steps[:2]
    for total in ways.totals(beginning, floor=min(plan.entries)):
        path = ways.path(beginning, total)
        for start, end in pairwise(path.steps):
            for step in range(start + 1, end):
                fill = path.reuse("residual")[step]
                assert (fill.operator, fill.weights) == (f"from-{start}", (start, step))


def test_without_looking_back_only_the_step_matters():
    plan = CachePlan.from_graph(random_graph(np.random.default_rng(1), STEPS, 50, 0.0))
    ways = Continuations(plan, looks_back=0)
    for each in plan.entries.values():
        for behind, step in enumerate(each.steps):
            everything_so_far = range(step + 1)
            assert step + each.budget - behind in ways.totals(everything_so_far, floor=min(plan.entries))


def test_computing_every_step_that_is_left_is_always_a_way_on():
    plan, _ = history_plan(np.random.default_rng(5))
    ways = Continuations(plan, looks_back=1)
    beginning = plan.entries[5].steps[:3]
    total = len(beginning) + STEPS - 1 - beginning[-1]
    assert ways.totals(beginning, floor=STEPS) == ([total] if total >= STEPS else [])
    assert ways.totals(beginning, floor=5)[-1] == total
    assert ways.path(beginning, total).steps == (*beginning, *range(beginning[-1] + 1, STEPS))


def test_a_plan_without_measured_errors_prefers_the_edges_of_larger_budgets():
    steps = {3: (0, 4, 8), 4: (0, 2, 4, 8), 5: (0, 2, 4, 6, 8)}
    plan = CachePlan.from_steps(Provenance(num_inference_steps=STEPS), steps)
    ways = Continuations(plan, looks_back=0)
    assert ways.path((0, 2, 4), 5).steps == (0, 2, 4, 6, 8)
    assert ways.totals((0, 2, 4), floor=4) == [4, 5, 6, 7]
    assert ways.totals((0, 2, 4), floor=5) == [5, 6, 7]
    assert ways.path((0, 2, 4), 4).predicted_error is None


def test_operators_that_look_back_further_are_refused():
    plan = CachePlan.from_steps(Provenance(num_inference_steps=4), {2: (0, 3)})
    with pytest.raises(ValueError, match="0 and 1"):
        Continuations(plan, looks_back=2)


def test_a_hundred_steps_with_edges_over_all_of_them_take_a_moment():
    """The table of all pairs took more than a minute here, and the engine stood still for it."""
    steps = 100
    paths = {
        budget: tuple(round(at * (steps - 1) / (budget - 1)) for at in range(budget)) for budget in range(2, steps)
    }
    plan = CachePlan.from_steps(Provenance(num_inference_steps=steps), paths)
    started = process_time()
    ways = Continuations(plan, looks_back=1)
    assert ways.totals((0,), floor=2) == list(range(2, steps + 1))
    assert process_time() - started < 10
