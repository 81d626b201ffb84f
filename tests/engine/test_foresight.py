"""What is predicted, against the same requests run in counted time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemica_backend.foresight import foresee
from lemica_backend.ranking import Ranking, Shares
from tests.engine.clockwork import FLAT, LINEAR, ROWS, Clockwork, Request, known_cost

STEPS = st.text("Cr", min_size=0, max_size=8).map(lambda middle: f"C{middle}C")
REQUESTS = st.lists(st.tuples(STEPS, st.integers(0, 1)), min_size=1, max_size=6)


def requests_of(drawn, clients=("",)):
    return [
        Request(number, steps, priority=priority, client=clients[number % len(clients)])
        for number, (steps, priority) in enumerate(drawn)
    ]


def predicted(requests, clockwork, most=8):
    ranking = Ranking(clockwork.policy, clockwork.ageing, 0.1)
    standings = [each.standing(clockwork.cost) for each in requests]
    slowdowns = clockwork.cost.slowdowns(ROWS, most)
    return foresee(standings, ranking, Shares({}, clockwork.lead_s), slowdowns=slowdowns, now=clockwork.now)


@settings(max_examples=80, deadline=None)
@given(drawn=REQUESTS, policy=st.sampled_from(["fcfs", "srpt", "edf"]))
def test_without_sharing_it_is_exact(drawn, policy):
    clockwork = Clockwork(policy, known_cost(LINEAR))
    expected = predicted(requests_of(drawn), clockwork)
    assert clockwork.run(requests_of(drawn)) == pytest.approx(expected)


@settings(max_examples=80, deadline=None)
@given(drawn=REQUESTS)
def test_with_sharing_the_whole_is_near(drawn):
    """Steps of different kinds do not share, so requests that share are somewhat later than predicted, or earlier."""
    clockwork = Clockwork("fcfs", known_cost(FLAT))
    expected = predicted(requests_of(drawn), clockwork)
    finished = clockwork.run(requests_of(drawn))
    alone = sum(each.standing(clockwork.cost).left_s for each in [Request(0, steps) for steps, _ in drawn])
    assert max(finished.values()) <= alone + 1e-9
    assert max(expected.values()) <= alone + 1e-9
    assert max(expected.values()) == pytest.approx(max(finished.values()), rel=0.7)


def test_equal_requests_that_share_finish_together():
    clockwork = Clockwork("fcfs", known_cost(FLAT))
    drawn = [("CCCC", 0)] * 4
    assert predicted(requests_of(drawn), clockwork) == pytest.approx(clockwork.run(requests_of(drawn)))


def test_clients_take_turns_as_they_will():
    drawn = [("CC", 0)] * 6
    clockwork = Clockwork("fcfs", known_cost(LINEAR), lead_s=2.0)
    requests = [*requests_of(drawn[:5], ["a"]), Request(5, "CC", client="b")]
    expected = predicted(requests, clockwork)
    assert clockwork.run(requests) == pytest.approx(expected, abs=2.0)
    assert expected[5] < expected[4]


def test_a_turn_is_foreseen():
    standings = [each.standing(known_cost()) for each in [Request(0, "CC"), Request(1, "CCC", priority=1)]]
    ranking = Ranking("srpt", 0.2, 0.1)
    found = foresee(standings, ranking, Shares({}, 0.0, turn=0), slowdowns=(1.0,), now=0.0)
    assert found == pytest.approx({0: 2.0, 1: 5.0})


def test_nothing_to_do_is_nothing_to_foresee():
    assert predicted([], Clockwork()) == {}


@pytest.mark.parametrize(
    ("cost", "finished"),
    [(LINEAR, [2.0, 2.0, 4.0, 4.0, 6.0]), (FLAT, [2.2, 2.2, 2.2, 2.2, 4.2])],
)
def test_lanes_go_on_at_once_and_share_as_one_does(cost, finished):
    clockwork = Clockwork("fcfs", known_cost(cost))
    ranking = Ranking("fcfs", 0.2, 0.1)
    standings = [each.standing(clockwork.cost) for each in requests_of([("CC", 0)] * 5)]
    found = foresee(standings, ranking, Shares({}, 0.0), slowdowns=clockwork.cost.slowdowns(ROWS, 2), now=0.0, lanes=2)
    assert [found[number] for number in range(5)] == pytest.approx(finished)
