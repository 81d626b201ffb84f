"""The embedded model's lazy calibration against its naive one, on what the committed journal holds of both."""

from pathlib import Path

import pytest

from benchmarks.bench_lazy import compare, complete_samples, open_recorded

JOURNAL = Path(__file__).parents[2] / "model_repository" / "latte_shapes" / "calibration" / "naive.jsonl"
EDGES, NAMED = 396, [10, 17, 25]


def test_a_tenth_of_the_forwards_finds_the_named_plans():
    samples = complete_samples(JOURNAL, EDGES)
    assert len(samples) == 2
    with open_recorded(JOURNAL) as recorded:
        row = compare(recorded, samples, NAMED, max_span=10)
    assert row["naive"] == 8990
    assert row["share"] <= 0.1
    assert 0.6 < row["totals"][0] <= 1 <= row["totals"][1] < 1.6
    assert row["off"] == pytest.approx(dict.fromkeys(NAMED, 0), abs=0.02)


def test_samples_without_every_edge_are_left_out():
    assert complete_samples(JOURNAL, EDGES + 1) == []
