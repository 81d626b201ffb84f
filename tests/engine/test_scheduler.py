"""Who steps when, in counted time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemica_backend.fair_shares import FairShares
from tests.engine.clockwork import FLAT, LINEAR, Clockwork, Request, known_cost


def order(finished):
    return sorted(finished, key=finished.get)


def test_first_come_first_served_runs_one_after_another_where_sharing_does_not_pay():
    finished = Clockwork("fcfs").run([Request(0, "CCCC"), Request(1, "C"), Request(2, "CC")])
    assert finished == {0: 4.0, 1: 5.0, 2: 7.0}


def test_least_work_left_goes_first_and_interrupts():
    clockwork = Clockwork("srpt")
    finished = clockwork.run([Request(0, "CCCCCC"), Request(1, "CC", arrives_s=1.5)])
    assert finished == {1: 4.0, 0: 8.0}
    assert clockwork.ticks == [(0,), (0,), (1,), (1,), (0,), (0,), (0,), (0,)]


def test_skipped_steps_count_as_little_as_they_cost():
    finished = Clockwork("srpt").run([Request(0, "CCC"), Request(1, "CrrrrrC")])
    assert order(finished) == [1, 0]


def test_earliest_deadline_goes_first_and_those_without_one_by_their_time_limit():
    requests = [
        Request(0, "CC", limit_s=600),
        Request(1, "CC", deadline_s=50.0),
        Request(2, "CC", deadline_s=9.0),
        Request(3, "CC", limit_s=20),
    ]
    assert order(Clockwork("edf").run(requests)) == [2, 3, 1, 0]


@pytest.mark.parametrize("policy", ["fcfs", "srpt", "edf"])
def test_priority_is_above_every_policy_and_interrupts(policy):
    requests = [Request(0, "CC", deadline_s=3.0), Request(1, "CCCCC", arrives_s=0.5, priority=1)]
    assert order(Clockwork(policy).run(requests)) == [1, 0]


def test_a_promise_in_danger_goes_first():
    requests = [Request(0, "CCCCC", deadline_s=8.0)]
    requests += [Request(number, "CC", arrives_s=0.0) for number in range(1, 5)]
    finished = Clockwork("srpt").run(requests)
    assert finished[0] <= 8.0
    assert min(finished[number] for number in range(1, 5)) < finished[0]


def test_what_cannot_be_kept_any_more_does_not_hold_up_others():
    requests = [Request(0, "CCCCC", deadline_s=2.0), Request(1, "CCCCC", deadline_s=6.0)]
    finished = Clockwork("edf").run(requests)
    assert finished == {1: 5.0, 0: 10.0}


@settings(max_examples=60, deadline=None)
@given(
    policy=st.sampled_from(["fcfs", "srpt", "edf"]),
    ageing=st.sampled_from([0.05, 0.2, 1.0]),
    flood=st.lists(st.sampled_from(["C", "CC", "CrC"]), min_size=20, max_size=60),
    victim=st.sampled_from(["CCCCCC", "CrrrCCC"]),
)
def test_no_policy_starves_anybody(policy, ageing, flood, victim):
    """Short requests come as fast as they are served; a long one is overtaken only by those that come soon enough."""
    limit_s = 15.0
    requests = [Request(0, victim, limit_s=limit_s)]
    requests += [Request(at + 1, steps, arrives_s=at * 0.9) for at, steps in enumerate(flood)]
    for each in requests[1:]:
        each.limit_s = limit_s
    clockwork = Clockwork(policy, ageing=ageing)
    work_s = requests[0].standing(clockwork.cost).left_s
    finished = clockwork.run(requests)
    assert all(at is not None for at in finished.values())
    horizon = {"fcfs": 0.0, "srpt": work_s / ageing, "edf": 0.0}[policy]
    overtakers = [each for each in requests[1:] if each.arrives_s > horizon and finished[each.number] < finished[0]]
    assert not overtakers


def flood_and_one(lead_s):
    requests = [Request(number, "CC", client="flood") for number in range(20)]
    requests.append(Request(20, "CCCCCC", client="single"))
    return Clockwork("srpt", lead_s=lead_s, ageing=1e-6).run(requests)


def test_a_client_that_floods_gets_no_more_than_its_share():
    finished = flood_and_one(lead_s=0.0)
    assert finished[20] == pytest.approx(12.0, abs=1.0)  # half of the time until it is done
    assert flood_and_one(lead_s=1e9)[20] == 46.0  # without shares it would be last


def test_a_lead_lets_the_policy_choose_within_it():
    assert flood_and_one(lead_s=4.0)[20] == pytest.approx(16.0, abs=1.0)


def test_coming_and_going_earns_no_credit():
    shares = FairShares()
    shares.update({"a", "b"})
    shares.charge("a", 10.0)
    shares.update({"b"})  # a leaves ahead
    shares.update({"a", "b", "new"})
    assert shares.shares(1.0).served_s == {"a": 10.0, "b": 0.0, "new": 5.0}  # 5 each would have been fair
    shares.charge("new", 30.0)
    shares.update({"new", "b"})  # a leaves behind new
    shares.update({"a", "new", "b"})
    assert shares.shares(1.0).served_s == {"a": 15.0, "b": 0.0, "new": 35.0}  # it was away, and gets nothing for it
    assert shares.shares(1.0).ahead() == {"a", "new"}


@pytest.mark.parametrize("policy", ["fcfs", "srpt", "edf"])
def test_clients_that_always_come_new_starve_nobody(policy):
    """Each sends one request and goes, faster than they are served, so one of them has always had nothing yet."""
    requests = [Request(0, "CC", client="first"), Request(1, "CCCC", client="first")]
    requests += [Request(at + 2, "C", arrives_s=at * 0.9, client=f"new {at}") for at in range(120)]
    finished = Clockwork(policy, ageing=1.0).run(requests)
    assert finished[1] < 60


def test_clients_that_have_gone_are_forgotten():
    shares = FairShares()
    for number in range(1000):
        shares.update({"long", f"new {number}"})
        shares.charge(f"new {number}", 1.0)
    assert len(shares._clocks) < 10


def test_shares_start_anew_when_everybody_has_gone():
    shares = FairShares()
    shares.update({"a"})
    shares.charge("a", 10.0)
    shares.update({"b"})
    shares.update({"a", "b"})
    assert shares.shares(0.0).served_s == {"a": 0.0, "b": 0.0}


def test_all_share_a_forward_where_that_pays():
    clockwork = Clockwork("fcfs", cost=known_cost(FLAT))
    finished = clockwork.run([Request(number, "CC") for number in range(4)])
    assert clockwork.ticks == [(0, 1, 2, 3)] * 2
    assert set(finished.values()) == {2.6}


def test_no_more_share_than_may_be_started():
    clockwork = Clockwork("fcfs", cost=known_cost(FLAT), max_active=2)
    clockwork.run([Request(number, "CC") for number in range(4)])
    assert clockwork.ticks == [(0, 1)] * 2 + [(2, 3)] * 2


def test_running_alone_halves_the_mean_of_equal_requests():
    """Where sharing saves nothing, all in step would be done at the same, last moment."""
    alone = Clockwork("srpt").run([Request(number, "CrrC") for number in range(4)])
    in_step_s = 4 * (2 * LINEAR[2] + 2 * LINEAR[2] / 16)
    assert sum(alone.values()) / 4 == pytest.approx(in_step_s * 5 / 8)


def two_out_of_phase():
    return [Request(0, "CrrrCrrrC"), Request(1, "CrrrCrrrC")]


def test_requests_out_of_phase_are_brought_into_step():
    clockwork = Clockwork("fcfs", cost=known_cost(FLAT), align_ticks=3)
    first, second = two_out_of_phase()
    first.done, first.is_started = 4, True  # before a computed step; the other has just computed one
    second.done, second.is_started = 1, True
    clockwork.run([first, second])
    assert clockwork.ticks[:4] == [(1,), (1,), (1,), (0, 1)]
    assert all(tick == (0, 1) for tick in clockwork.ticks[3:8])


@pytest.mark.parametrize(("align_ticks", "compute"), [(2, FLAT), (0, FLAT), (3, LINEAR)])
def test_nobody_waits_for_longer_than_allowed_or_for_nothing(align_ticks, compute):
    clockwork = Clockwork("fcfs", cost=known_cost(compute), align_ticks=align_ticks)
    first, second = two_out_of_phase()
    first.done, first.is_started = 4, True
    second.done, second.is_started = 1, True
    clockwork.run([first, second])
    assert 0 in clockwork.ticks[0]


def test_waiting_for_others_breaks_no_promise_of_one_that_computes_beside_the_leader():
    clockwork = Clockwork("fcfs", cost=known_cost(FLAT), align_ticks=3)
    first, late = two_out_of_phase()
    first.done, first.is_started = 4, True
    late.number, late.done, late.is_started = 2, 1, True
    second = Request(1, first.steps, done=4, is_started=True, deadline_s=2.35)
    clockwork.run([first, second, late])
    assert 1 in clockwork.ticks[0]


def test_waiting_for_others_breaks_no_promise():
    clockwork = Clockwork("fcfs", cost=known_cost(FLAT), align_ticks=3)
    first, second = two_out_of_phase()
    first.done, first.is_started, first.deadline_s = 4, True, 2.25
    second.done, second.is_started = 1, True
    finished = clockwork.run([first, second])
    assert clockwork.ticks[0] == (0,)
    assert finished[0] <= 2.25


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=12),
    arrivals=st.lists(st.floats(0, 10), min_size=12, max_size=12),
    compute=st.sampled_from([LINEAR, FLAT]),
    options=st.fixed_dictionaries(
        {
            "policy": st.sampled_from(["fcfs", "srpt", "edf"]),
            "max_active": st.integers(1, 4),
            "align_ticks": st.integers(0, 4),
        }
    ),
)
def test_room_is_never_exceeded_and_everybody_finishes(sizes, arrivals, compute, options):
    requests = [
        Request(number, "CrrC"[: 1 + number % 4], arrives_s=arrivals[number], cache_bytes=size)
        for number, size in enumerate(sizes)
    ]
    clockwork = Clockwork(**options, cost=known_cost(compute), cache_bytes=50)
    finished = clockwork.run(requests)
    assert None not in finished.values()
    assert max(clockwork.started_bytes) <= 50
    assert max(map(len, clockwork.ticks)) <= options["max_active"]


def test_a_large_request_is_not_passed_by_small_ones_behind_it():
    requests = [Request(0, "CC", cache_bytes=30), Request(1, "CCC", arrives_s=0.5, cache_bytes=30)]
    requests += [Request(2, "CCCC", arrives_s=0.6, cache_bytes=5)]
    finished = Clockwork("fcfs", cost=known_cost(FLAT), cache_bytes=40).run(requests)
    assert order(finished) == [0, 1, 2]
