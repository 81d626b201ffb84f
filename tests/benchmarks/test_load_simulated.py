"""The comparison on a counted clock, and requests made of random parts."""

import json
import random

import pytest

from benchmarks.load.priorities import waits
from benchmarks.load.robustness.random_requests import broken, generate_request, grpc_request, json_request
from benchmarks.load.simulate import DEVICES, SimulatedLoad, clockwork, engine, simulate, whole_batches


def requests(*plans):
    return [clockwork.Request(number, plan) for number, plan in enumerate(plans)]


def test_whole_batches_end_together_and_wait_for_the_one_before():
    cost = clockwork.known_cost(clockwork.LINEAR)
    finished = whole_batches(requests("CC", "CC", "CC"), cost, most=2)
    assert finished == {0: 4.0, 1: 4.0, 2: 6.0}  # seconds: linear, so two computed rows take 2 s a step


def test_one_plan_for_a_batch_is_the_largest_in_it():
    cost = clockwork.known_cost(clockwork.LINEAR)
    assert whole_batches(requests("CCCC", "CrrC"), cost, one_plan=True)[1] == 8.0
    assert whole_batches(requests("CCCC", "CrrC"), cost)[1] < 7.0


def test_engine_lets_a_short_request_pass():
    finished = engine(requests("CCCCCCCC", "CC"), clockwork.known_cost(clockwork.LINEAR))
    assert finished[1] == 2.0
    assert finished[0] == 10.0


def test_ratios_are_smaller_where_sharing_is_free():
    rows = list(simulate(SimulatedLoad((3, 6, 12), 12, 0.7, 30), rounds=3))
    found = {(row.device, row.way): row.p95_ratio["ratio"] for row in rows}
    for device in DEVICES:
        assert found[device, "lemica"] == 1
        assert found[device, "whole batches, one plan"] < 1
    assert found["sharing is free", "whole batches"] < found["sharing saves nothing", "whole batches"] < 1


def test_low_priorities_wait_for_long_without_a_share_only():
    strict, shared = (
        {each.kind: each for each in waits(share, count=300, in_flight=8, step_s=0.2, seed=0)} for share in (0.0, 0.1)
    )
    assert strict["lower"].silent > 0
    assert sum(each.silent for each in shared.values()) == 0
    assert sum(each.requests for each in shared.values()) >= 300
    assert shared["higher"].longest_s < 10


@pytest.mark.parametrize("seed", range(20))
def test_random_requests_follow_from_their_seed(seed):
    first, again = (random.Random(seed) for _ in range(2))
    assert json_request(first, [1, 1]) == json_request(again, [1, 1])
    assert grpc_request("m", first, [1, 1]) == grpc_request("m", again, [1, 1])
    assert broken(generate_request(first), first) == broken(generate_request(again), again)


def test_no_json_body_claims_more_than_memory_holds():
    rng = random.Random(0)
    for _ in range(500):
        for tensor in json.loads(json_request(rng, [1, 1]))["inputs"]:
            assert max(tensor["shape"], default=1) <= 100
