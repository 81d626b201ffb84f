"""A model whose weights change at step 9: no edge skips it, and nothing looks back across it."""

import numpy as np
import pytest

from lemica_planner import InfeasibleBudgetError
from lemica_planner.calibrate import calibrate
from lemica_planner.graph_file import load_graph
from lemica_planner.switches import feasible_range
from tests.planner.test_lazy import ALL, SAMPLES, SPAN, STEPS, run
from tests.planner.toy_replayer import ToyReplayer

SWITCH = 9


class Switched(ToyReplayer):
    switched = (SWITCH,)


@pytest.fixture
def lazy(tmp_path):
    return run(tmp_path / "journal.jsonl", Switched(STEPS), operators=ALL, refine=12)


def test_naive_edges_over_it_are_not_allowed_and_the_others_are_as_ever(tmp_path):
    plain, switched = (
        calibrate(kind(STEPS), SAMPLES, max_span=SPAN, journal=tmp_path / kind.__name__)
        for kind in (ToyReplayer, Switched)
    )
    starts, ends = np.indices(plain.weights.shape)
    crossing = np.isfinite(plain.weights) & (starts < SWITCH) & (ends > SWITCH)
    assert crossing.any()
    assert np.isinf(switched.weights[crossing]).all()
    np.testing.assert_allclose(switched.weights[~crossing], plain.weights[~crossing], rtol=1e-12)


def test_naive_histories_begin_at_it(tmp_path):
    replayer = Switched(STEPS)
    operator = "residual-quadratic"
    calibrate(replayer, SAMPLES[:1], max_span=4, journal=tmp_path / "journal", operator=operator)
    histories = {segment.start: segment.history for segments in replayer.calls for segment in segments}
    assert [histories[start] for start in (7, 9, 10, 11)] == [(5, 6), (), (9,), (9, 10)]


def test_every_lazy_plan_computes_it(lazy):
    entries = lazy.entries()
    assert min(entries) == feasible_range(STEPS, SPAN, [SWITCH]).start
    assert all(SWITCH in entry.steps for entry in entries.values())
    assert {budget for budget, entry in entries.items() if entry.outcome is not None} == {6, 8, 12}


def test_lazy_histories_do_not_cross_it(lazy):
    assert any(segment.history for segment in lazy.candidates.segments)
    for segment in lazy.candidates.segments:
        assert not (segment.start < SWITCH < segment.end)
        assert all(step >= SWITCH for step in segment.history) or segment.start < SWITCH


def test_it_survives_a_file(lazy, tmp_path):
    lazy.save(tmp_path / "graph.npz")
    again = load_graph(tmp_path / "graph.npz")
    assert again.candidates.switches == (SWITCH,)
    assert again.entries() == lazy.entries()


@pytest.mark.parametrize(("switches", "smallest"), [((), 6), ((12,), 7), ((9,), 6), ((3, 9), 7), ((1, 2, 22), 8)])
def test_the_smallest_budget(switches, smallest):
    """A path of edges up to 5 over 24 steps."""
    assert feasible_range(24, 5, switches) == range(smallest, 25)


def test_a_budget_without_room_for_it_is_refused(tmp_path):
    assert feasible_range(STEPS, 12, [12]).start == 3
    with pytest.raises(InfeasibleBudgetError, match="4"):
        run(tmp_path / "journal.jsonl", Switched(STEPS), max_span=12, budgets=[3])
