"""How many steps: by deadlines and by load, in counted time."""

from functools import partial

import pytest

from lemica_backend.budgeting import Budgeting, Option, Range
from lemica_backend.cost_model import Work
from lemica_backend.foresight import foresee
from lemica_backend.ranking import Ranking, Shares
from lemica_backend.standing import Standing

MARGIN = 0.1
TOTALS = tuple(range(10, 51, 5))  # a computed step takes a second


def standing(number, left_s, *, deadline_s=None, priority=0, arrived_s=0.0):
    work = Work("compute", 2)
    return Standing(number, priority, "", arrived_s, 1e6, deadline_s, left_s, work, is_started=True)


def options(*, totals=TOTALS, done=0, **how):
    return [Option(total, standing(99, float(total - done), **how)) for total in totals]


def budgeting(policy="fcfs", now=0.0, pace=1.0):
    ranking = Ranking(policy, 0.2, MARGIN)
    look_ahead = partial(foresee, ranking=ranking, shares=Shares({}, 0.0), slowdowns=(1.0,), now=now)
    return Budgeting(look_ahead, margin=MARGIN, pace=pace, now=now)


@pytest.mark.parametrize(
    ("deadline_s", "queue_s", "expected"),
    [
        (1000.0, 0.0, 50),
        (50.0, 0.0, 45),  # 45 s and a tenth of it
        (55.1, 0.0, 50),
        (44.5, 0.0, 40),
        (44.5, 20.0, 20),
        (44.5, 30.0, 10),
        (11.01, 0.0, 10),
        (10.9, 0.0, None),
        (44.5, 31.0, None),
    ],
)
def test_the_largest_budget_that_meets_the_deadline_behind_the_queue(deadline_s, queue_s, expected):
    others = [standing(0, queue_s)] if queue_s else []
    assert budgeting().within_deadlines(options(deadline_s=deadline_s), others) == expected


def test_another_requests_promise_counts_like_ones_own():
    others = [standing(0, 20.0, deadline_s=60.0, arrived_s=1.0)]  # behind the new one, first come
    assert budgeting().within_deadlines(options(deadline_s=1000.0), others) == 30
    assert budgeting("edf").within_deadlines(options(deadline_s=1000.0), others) == 50


def test_a_promise_that_is_lost_anyway_is_no_reason():
    others = [standing(0, 20.0, deadline_s=5.0, arrived_s=1.0)]
    assert budgeting().within_deadlines(options(deadline_s=1000.0), others) == 50


@pytest.mark.parametrize(("policy", "queue"), [("fcfs", [30.0, 12.0]), ("srpt", [5.0, 100.0]), ("edf", [7.0])])
def test_the_earliest_deadline_is_one_that_would_have_been_taken(policy, queue):
    others = [standing(number, left_s) for number, left_s in enumerate(queue)]
    how = {"totals": (10, 20), "arrived_s": 0.5}
    smallest = options(**how)[0].standing
    earliest = budgeting(policy).earliest(smallest, others)
    decide = partial(budgeting(policy).within_deadlines, others=others)
    assert decide(options(**how, deadline_s=earliest)) == 10
    assert decide(options(**how, deadline_s=earliest * 0.98)) is None


@pytest.mark.parametrize(("policy", "mine"), [("srpt", {}), ("edf", {"priority": 1})])
def test_there_is_no_earliest_deadline_where_the_order_breaks_anothers_promise_by_any(policy, mine):
    others = [standing(0, 20.0, deadline_s=23.0)]
    smallest = options(**mine)[0].standing
    assert budgeting(policy).earliest(smallest, others) is None
    for deadline_s in (30.0, 1e3, 1e5):
        decided = budgeting(policy).within_deadlines(options(**mine, deadline_s=deadline_s)[:1], others)
        assert decided is None


def test_the_earliest_deadline_keeps_others_promises_where_the_order_allows():
    others = [standing(0, 20.0, deadline_s=23.0)]
    earliest = budgeting("edf").earliest(options()[0].standing, others)
    assert earliest == pytest.approx(33.0, rel=0.01)


@pytest.mark.parametrize(("wait_s", "expected"), [(0.0, 50.0), (50.0, 30.0), (150.0, 20.0), (1e9, 10.0)])
def test_load_moves_a_range_towards_its_floor(wait_s, expected):
    mine, allowed = standing(99, 50.0), Range(10, 50, 50.0)
    assert budgeting().under_load(allowed, mine, [standing(0, wait_s)]) == pytest.approx(expected)


def test_lower_priorities_and_shared_ticks_are_less_load():
    mine, allowed = standing(99, 50.0, priority=1), Range(10, 50, 50.0)
    assert budgeting().under_load(allowed, mine, [standing(0, 1e6)]) == 50.0
    assert budgeting(pace=0.5).under_load(allowed, mine, [standing(0, 100.0, priority=2)]) == pytest.approx(30.0)


def anew(current, *, wait_s=0.0, done=5, **how):
    others = [standing(0, wait_s, arrived_s=9.0)] if wait_s else []
    return budgeting().anew(options(done=done, **how), current, Range(10, 50, 50.0), others)


def test_a_running_request_goes_up_when_load_falls_and_down_when_it_rises():
    assert anew(20) == 50
    assert anew(50, wait_s=150.0) == 20
    assert anew(20, wait_s=150.0) == 20


def test_a_running_request_does_not_change_by_a_single_step():
    near = (29, 30, 31)
    assert anew(30, totals=near) == 30
    assert anew(31, totals=near, wait_s=50.0) == 31


def test_a_deadline_in_danger_lowers_it_by_as_little_as_needed():
    assert anew(50, deadline_s=33.0) == 35
    assert anew(36, totals=(35, 36), deadline_s=33.0) == 35
    assert anew(50, deadline_s=1.0) == 10  # cannot be met: as soon as possible


def test_it_goes_up_only_with_twice_the_margin():
    assert anew(20, deadline_s=44.5) == 40  # 35 s are left then; with a tenth 38.5, with two tenths 42
    assert anew(40, deadline_s=41.0) == 40
    assert anew(30, deadline_s=41.0) == 35


def test_another_requests_deadline_lowers_it_too():
    others = [standing(0, 10.0, deadline_s=33.0, arrived_s=9.0)]
    assert budgeting().anew(options(done=5), 50, Range(10, 50, 50.0), others) == 25


def test_load_does_not_lower_what_has_a_deadline():
    assert anew(50, wait_s=1e5, deadline_s=100.0) == 50
