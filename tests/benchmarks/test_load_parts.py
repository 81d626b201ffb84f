"""Arrivals, measures, journals and memory of the load tests, without a server."""

import json
import math
import random

import numpy as np
import pytest

from benchmarks.load.arrivals import Mix, at_once, changed, poisson
from benchmarks.load.client import FAILED, OK, REFUSED, SILENT, Answer
from benchmarks.load.journal import Journal, JournalError
from benchmarks.load.measures import compare, in_turns, latencies_turns, measured, medians, pooled
from benchmarks.load.perf_analyzer import Load, PerfAnalyzer, PerfAnalyzerError, arguments, input_data, read_point
from benchmarks.load.report import Goal, without_nan
from benchmarks.load.robustness.malformed import HEAD, Outcomes, stream_word, unanswered
from benchmarks.load.robustness.memory import growth
from benchmarks.load.robustness.steady import Ended, counts
from benchmarks.load.robustness.wire import StreamEnd
from benchmarks.load.robustness_commands import failures_of

MIX = Mix.parse("fast=2,slow,full=1")


def test_mix_reads_weights():
    assert Mix(("fast", "slow", "full"), (2.0, 1.0, 1.0)) == MIX


@pytest.mark.parametrize("text", ["", "=2", "fast=0", "fast=-1,slow"])
def test_mix_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="allowed are budgets with weights above 0"):
        Mix.parse(text)


def test_drawn_shares_are_those_of_the_mix():
    drawn = MIX.draw(41, random.Random(0))
    assert sorted(map(drawn.count, MIX.budgets)) in ([10, 10, 21], [10, 11, 20])
    assert drawn != sorted(drawn)


def test_poisson_arrivals_have_exponential_gaps_of_the_right_mean():
    gaps = np.diff([0.0, *(ask.at_s for ask in poisson(MIX, 4.0, 4000, seed=1))])
    assert gaps.mean() == pytest.approx(0.25, rel=0.05)
    assert gaps.std() == pytest.approx(0.25, rel=0.1)  # exponential: as large as the mean
    assert gaps.min() > 0


def test_seeds_decide_the_arrivals_and_nothing_else_does():
    assert poisson(MIX, 1.0, 20, seed=3) == poisson(MIX, 1.0, 20, seed=3)
    assert poisson(MIX, 1.0, 20, seed=3) != poisson(MIX, 1.0, 20, seed=4)
    assert {ask.deadline_ms for ask in changed(at_once(MIX, 5, seed=0), deadline_ms=7)} == {7}


def test_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="has to be above 0"):
        poisson(MIX, 0.0, 3, seed=0)


def answer(at_s, done_s, outcome=OK, computed=3):
    return Answer(at_s, at_s, done_s, outcome, "fast", computed if outcome == OK else None)


def test_measures_count_from_the_arrival_and_over_all_requests():
    answers = [answer(0, 1), answer(1, 5), answer(2, 2, REFUSED), answer(2, 3, FAILED), answer(3, 10, SILENT)]
    found = measured(answers, deadline_s=2)
    assert (found["p50_s"], found["p95_s"], found["mean_s"]) == (1, 4, 2.5)
    assert found["per_s"] == pytest.approx(2 / 10)
    assert found["met"] == pytest.approx(1 / 5)
    assert [found[name] for name in (OK, REFUSED, FAILED, SILENT)] == [2, 1, 1, 1]
    assert found["computed"] == 3


def test_quantiles_are_latencies_that_were_measured():
    found = measured([answer(0, seconds) for seconds in range(1, 21)])
    assert (found["p50_s"], found["p95_s"], found["p99_s"]) == (10, 19, 20)


def test_a_refusal_takes_from_sending_to_hearing_of_it():
    found = measured([answer(0, 4), answer(1, 1.01, REFUSED), answer(2, 2.02, REFUSED)])
    assert found["refused_p95_s"] == pytest.approx(0.02)
    assert math.isnan(measured([answer(0, 1)])["refused_p95_s"])


def test_nothing_served_has_no_latency():
    found = measured([answer(0, 1, REFUSED)])
    assert math.isnan(found["p95_s"])
    assert without_nan(found)["p95_s"] is None


def test_turns_are_of_the_time_of_one_request():
    found = in_turns({"p50_s": 1.0, "p95_s": 4.0, "p99_s": 6.0, "per_s": 3.0}, 2.0)
    assert (found["p50_turns"], found["p95_turns"], found["p99_turns"]) == (0.5, 2, 3)
    assert (found["per_turn"], found["turn_s"], found["p95_s"]) == (6, 2, 4)


def row(number, way, p95_s):
    return {"round": number, "load": "70 %", "way": way, "p95_s": p95_s}


def test_ratios_pair_the_rounds():
    rows = [row(0, "a", 1.0), row(0, "b", 2.0), row(1, "b", 40.0), row(1, "a", 10.0), row(2, "a", 1.0)]
    (found,) = compare(rows, "a", {"70 %": ["p95_s"]})
    assert (found["against"], found["rounds"]) == ("b", 2)  # round 2 has one side
    assert found["ratio"] == pytest.approx((0.5 + 0.25) / 2)
    assert found["interval"] == [0.25, 0.5]


def test_pooled_quantiles_are_of_all_requests_of_the_rounds_that_both_ways_have():
    rng = np.random.default_rng(0)
    rows = [
        {"round": number, "load": "70 %", "way": way, "latencies_turns": list(rng.exponential(mean, 40))}
        for number in range(5)
        for way, mean in (("a", 1.0), ("b", 2.0))
    ]
    rows.append({"round": 5, "load": "70 %", "way": "a", "latencies_turns": [1e6] * 40})  # cut off before the other way
    rows.append({"round": 5, "load": "capacity", "way": "b", "latencies_turns": [1e6] * 40})
    (found,) = pooled(rows, "a", "70 %")
    everything = np.sort(np.concatenate([row["latencies_turns"] for row in rows[:10:2]]))
    assert (found["against"], found["rounds"], found["ours"]) == ("b", 5, everything[189])
    assert found["interval"][0] < 0.5 < found["interval"][1]
    assert found["interval"][0] < found["ratio"] < found["interval"][1] < 1
    assert not list(pooled([{"round": 0, "load": "70 %", "way": "a"}], "a", "70 %"))  # a row of an older journal


def test_only_what_was_served_has_a_latency():
    assert latencies_turns([answer(0, 1), answer(1, 5, REFUSED), answer(2, 5)], 2.0) == [0.5, 1.5]


def test_medians_are_over_rounds():
    rows = [row(number, "a", value) for number, value in enumerate((1.0, 9.0, 2.0))]
    assert list(medians(rows, "load", "way")) == [{"load": "70 %", "way": "a", "rounds": 3, "p95_s": 2.0}]


def test_journal_goes_on_after_a_torn_line(tmp_path):
    path = tmp_path / "runs" / "rows.jsonl"
    Journal(path, {"steps": 4}).add({"round": 0, "load": "70 %"})
    with path.open("a") as file:
        file.write('{"round": 1, "lo')
    again = Journal(path, {"steps": 4})
    assert again.find(round=0) == {"round": 0, "load": "70 %"}
    assert again.find(round=1) is None
    again.add({"round": 1})
    assert [json.loads(line) for line in path.read_text().splitlines()][2] == {"round": 1}


def test_journal_of_other_settings_is_refused(tmp_path):
    Journal(tmp_path / "rows", {"steps": 4, "seed": 0})
    with pytest.raises(JournalError, match="steps was 4 and is 5"):
        Journal(tmp_path / "rows", {"steps": 5, "seed": 0})


MIB = 2**20


def test_growth_that_goes_on_is_no_noise():
    found = growth([(100 + number) * MIB for number in range(40)])
    assert found.growth_mib == pytest.approx(10)
    assert not found.is_noise
    rng = np.random.default_rng(0)
    assert not growth([int((100 + number + rng.normal(0, 2)) * MIB) for number in range(80)]).is_noise


def test_samples_that_jump_about_one_level_are_noise():
    rng = np.random.default_rng(0)
    found = growth([int((100 + rng.normal(0, 5)) * MIB) for _ in range(80)])
    assert found.is_noise
    assert found.noise_mib > 5


def test_growth_that_ended_in_the_first_half_is_forgiven():
    assert growth([number * MIB for number in range(1, 100)] + [100 * MIB] * 120).is_noise


def test_missing_worker_makes_no_noise():
    samples = [100 * MIB] * 40
    samples[22] = 0
    assert growth(samples).noise_mib == pytest.approx(1)  # 1 % of the memory


def test_growth_needs_samples():
    with pytest.raises(ValueError, match="at least 8 are needed"):
        growth([MIB] * 7)


def test_whole_requests_are_answered_once_whatever_they_are():
    ends = [("grpc OK", 1), ("error", 1), ("grpc INTERNAL", 0), ("grpc OK", 0), ("grpc OK", 2), ("silent", 0)]
    outcomes = Outcomes()
    for end in ends:
        outcomes.add("gRPC stream", stream_word(StreamEnd(*end)))
    for kind in ("HTTP infer", HEAD):  # a broken head may rightly be left without an answer
        for word in ("http 400", "closed", "silent"):
            outcomes.add(kind, word)
    assert unanswered(outcomes) == 3 + 2


def test_an_answer_that_is_neither_a_video_nor_unavailable_is_a_failure():
    words = ["grpc OK", "refused", "silent", "error", "grpc INTERNAL"]
    found = counts([Ended(word, int(word != "silent"), 0.0, 1.0) for word in words])
    assert (found["failed"], found["unanswered"], found["answered_twice"]) == (2, 1, 0)


FINE = {
    "outcomes": {"grpc OK": 9, "refused": 1, "unanswered": 0, "answered_twice": 0, "failed": 0},
    "kills": 2,
    "last_failure_s": [0.2, 0.9],
    "worker_restarts": 2.0,
    "is_alive": True,
    "serves_afterwards": True,
    "left_over": {},
    "memory": {"growth_mib": 3.0, "is_noise": True},
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"is_alive": False}, "tritonserver died"),
        ({"serves_afterwards": False}, "serves no more"),
        ({"left_over": {"lemica_cached_bytes": 8.0}}, "did not let go of"),
        ({"unanswered": 1}, "were not answered"),
        ({"malformed_unanswered": 1}, "malformed requests were not answered"),
        ({"outcomes": {"unanswered": 1}}, "were not answered"),
        ({"outcomes": {"answered_twice": 1}}, "answered twice"),
        ({"outcomes": {"failed": 1}}, "more than UNAVAILABLE"),
        ({"last_failure_s": [0.2, 1.7]}, "after 1.7 s only"),
        ({"worker_restarts": 1.0}, "not replaced"),
        ({"memory": None}, "too short to judge memory"),
        ({"memory": {"growth_mib": 9.0, "is_noise": False}}, "memory grew by 9.0 MiB"),
    ],
)
def test_each_thing_that_must_not_be_is_a_failure(change, says):
    assert failures_of(FINE) == []
    (failure,) = failures_of(FINE | change)
    assert says in failure


@pytest.mark.parametrize(
    ("ratio", "interval", "verdict"),
    [
        (0.5, [0.4, 0.6], "met"),
        (0.6, [0.5, 0.8], "met, not surely"),
        (0.7, [0.6, 0.8], "missed, not surely"),
        (0.9, [0.8, 1.1], "missed"),
    ],
)
def test_a_goal_is_met_surely_where_all_of_the_interval_says_so(ratio, interval, verdict):
    goal = Goal("70 %", "p95_turns, pooled", "whole batches", at_most=0.67)
    assert goal.verdict({"ratio": ratio, "interval": interval}) == verdict


def test_perf_analyzer_gets_every_input_from_the_mix():
    entries = input_data("fast=1,slow=1")
    assert {entry["budget"][0] for entry in entries} == {"fast", "slow"}
    assert all(set(entry) == {"prompt", "budget", "seed"} for entry in entries)


def test_perf_analyzer_arguments_and_figures(tmp_path):
    load = Load("lemica", "fast", "rate", 0.5, 20)
    said = " ".join(arguments("host:1", load, tmp_path / "in", tmp_path / "out"))
    assert "--request-rate-range 0.5 --request-distribution poisson" in said
    assert "count_windows --measurement-request-count 20" in said
    header = "Request Rate,Inferences/Second,Client Send,p50 latency,p95 latency,p99 latency\n"
    point = read_point(load, header + "0.5,0.48,10,1400000,2500000,2600000\n")
    assert (point.per_s, point.p50_ms, point.p95_ms) == (0.48, 1400, 2500)


def test_missing_perf_analyzer_says_how_to_get_it(tmp_path):
    with pytest.raises(PerfAnalyzerError, match=r"install_perf_analyzer\.sh"):
        PerfAnalyzer(tmp_path / "none")
