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


def of(client, priority=0, number=0):
    return Request(number, "C", client=client, priority=priority).standing(known_cost())


def update(shares, clients):
    shares.update([of(client) for client in clients])


def served_s(shares):
    return {party.client: seconds for party, seconds in shares.shares(1.0).served_s.items()}


def test_coming_and_going_earns_no_credit():
    shares = FairShares()
    update(shares, "ab")
    shares.charge(of("a"), 10.0)
    update(shares, "b")  # a leaves ahead
    update(shares, "abn")
    assert served_s(shares) == {"a": 10.0, "b": 0.0, "n": 5.0}  # 5 each would have been fair
    shares.charge(of("n"), 30.0)
    update(shares, "nb")  # a leaves behind the new one
    update(shares, "anb")
    assert served_s(shares) == {"a": 15.0, "b": 0.0, "n": 35.0}  # it was away, and gets nothing for it
    assert shares.shares(1.0).ahead() == {(0, "a"), (0, "n")}


def test_priorities_have_shares_of_their_own():
    shares = FairShares()
    shares.update([of("a"), of("b"), of("low", priority=-1), of("b", priority=-1)])
    shares.charge(of("a"), 10.0)
    shares.charge(of("b"), 9.0)
    assert shares.shares(0.5).ahead() == {(0, "a")}  # nobody is ahead of those who may not go on yet


def test_who_waits_with_a_low_priority_takes_no_share_from_others():
    """One that is never served must not be the last of all, with everybody else ahead alike."""
    requests = [Request(number, "CC", client="flood") for number in range(20)]
    requests += [Request(20, "CCCCCC", client="single"), Request(21, "C", client="background", priority=-1)]
    finished = Clockwork("srpt", lead_s=0.0, ageing=1e-6).run(requests)
    assert finished[20] == pytest.approx(12.0, abs=1.0)


def rush(low, *, until_s, policy="srpt", low_priority_share=0.1, **options):
    """Run `low` against requests of a higher priority that come as soon as the one before is finished."""
    requests = [low, *(Request(at + 1, "CC", arrives_s=2.0 * at, priority=1) for at in range(int(until_s / 2)))]
    clockwork = Clockwork(policy, low_priority_share=low_priority_share, **options)
    return clockwork, clockwork.run(requests)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.sampled_from(["C", "CCCC", "CrrC"]),
    priority=st.sampled_from([0, -1, -(2**31)]),
    options=st.fixed_dictionaries(
        {
            "policy": st.sampled_from(["fcfs", "srpt", "edf"]),
            "low_priority_share": st.sampled_from([0.05, 0.1, 0.3]),
            "cost": st.sampled_from([LINEAR, FLAT]).map(known_cost),
            "max_active": st.sampled_from([1, 8]),
        }
    ),
)
def test_no_priority_starves_anybody(steps, priority, options):
    low = Request(0, steps, priority=priority, limit_s=1e9)
    bound_s = low.standing(options["cost"]).left_s / options["low_priority_share"] + 4 * max(LINEAR.values())
    _, finished = rush(low, until_s=2 * bound_s + 20, **options)
    assert finished[0] <= bound_s


def test_a_low_priority_takes_no_more_than_its_share_and_goes_on_to_its_end():
    clockwork, finished = rush(Request(0, "CCCC"), until_s=100)
    turns = [at for at, tick in enumerate(clockwork.ticks) if tick == (0,)]
    assert turns == list(range(turns[0], turns[0] + 4))
    assert finished[0] == pytest.approx(40.0, abs=5.0)


def test_short_rushes_are_not_interrupted_and_time_put_by_is_forgotten():
    low = [Request(0, "CC"), Request(9, "CC", arrives_s=30.0)]
    high = [Request(1, "C" * 15, priority=1), Request(8, "C" * 15, arrives_s=30.0, priority=1)]
    finished = Clockwork(low_priority_share=0.1).run(low + high)
    assert finished == {1: 15.0, 0: 17.0, 8: 45.0, 9: 47.0}


def test_without_a_share_priorities_are_strict():
    _, finished = rush(Request(0, "C"), until_s=100, low_priority_share=0.0)
    assert finished[0] == 101.0


def test_a_turn_breaks_no_promise():
    requests = [Request(0, "CCCC"), Request(1, "C" * 60, priority=1), Request(2, "CC", priority=1, arrives_s=39.5)]
    requests[2].deadline_s = 42.05
    clockwork = Clockwork("fcfs", low_priority_share=0.1)
    finished = clockwork.run(requests)
    assert finished[2] <= 42.05
    assert finished[0] < finished[1]


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
        update(shares, ["long", f"new {number}"])
        shares.charge(of(f"new {number}"), 1.0)
    assert len(shares._levels[0]._clocks) < 10
    shares.update([of("long", priority=7)])
    assert set(shares._levels) == {7}


def test_shares_start_anew_when_everybody_has_gone():
    shares = FairShares()
    update(shares, "a")
    shares.charge(of("a"), 10.0)
    update(shares, "b")
    update(shares, "ab")
    assert served_s(shares) == {"a": 0.0, "b": 0.0}


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
