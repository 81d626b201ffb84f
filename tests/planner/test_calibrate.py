import json

import numpy as np
import pytest

from lemica_planner import CachePlan, CalibrationError, JournalError, Sample, Segment, solve_all
from lemica_planner.calibrate import calibrate
from lemica_planner.journal import Journal
from tests.planner.toy_replayer import ToyReplayer, slow_errors

SAMPLES = [Sample("a red cube", 0), Sample("a red cube", 1), Sample("zwei Würfel\nund mehr", 0)]
STEPS, SPAN = 9, 4


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.jsonl"


@pytest.fixture
def graph(tmp_path):
    """The graph of a run that nothing interrupted."""
    return run(tmp_path / "whole.jsonl")


def run(journal, replayer=None, samples=SAMPLES, max_span=SPAN, **options):
    return calibrate(replayer or ToyReplayer(), samples, max_span=max_span, journal=journal, **options)


def assert_same(left, right, rtol=0.0):
    np.testing.assert_allclose(left.weights, right.weights, rtol=rtol)
    np.testing.assert_allclose(left.sample_errors, right.sample_errors, rtol=rtol)
    assert (left.provenance, left.samples) == (right.provenance, right.samples)


@pytest.mark.parametrize("operator", ["residual", "residual-linear"])
def test_errors_are_those_of_the_definition(journal, operator):
    graph = run(journal, operator=operator)
    assert graph.provenance.operator == operator
    for start in range(STEPS):
        for end in range(start + 2, STEPS):
            slow = [slow_errors(sample, STEPS, (start, end), operator) for sample in SAMPLES]
            if end - start > SPAN:
                assert np.isinf(graph.weights[start, end])
            else:
                np.testing.assert_allclose(graph.weights[start, end], np.mean(slow), rtol=1e-12)
                np.testing.assert_allclose(graph.sample_errors[:, start, end], slow, rtol=1e-6)


def test_direct_edges_cost_nothing_and_the_graph_can_be_solved(graph):
    assert (np.diag(graph.weights, 1) == 0).all()
    assert (np.diagonal(graph.sample_errors, 1, 1, 2) == 0).all()
    assert list(solve_all(graph)) == [3, 4, 5, 6, 7, 8, 9]


def test_it_states_what_it_is_valid_for(graph):
    assert graph.samples == tuple(SAMPLES)
    assert graph.provenance.calibrated
    known = graph.provenance.calibration
    assert (known["samples"], known["seeds"], known["max_span"]) == (3, [0, 1], SPAN)
    assert len(known["prompts_sha256"]) == 64
    assert CachePlan.from_graph(graph).provenance == graph.provenance


def test_edges_of_one_call_share_their_end(journal):
    replayer = ToyReplayer()
    run(journal, replayer, SAMPLES[:1])
    assert replayer.calls == [[Segment(i, j) for i in range(max(0, j - SPAN), j - 1)] for j in range(2, STEPS)]
    assert replayer.sessions[0].is_closed


@pytest.mark.parametrize("calls", [0, 1, 6, 7, 8, 13, 20])
def test_an_interrupted_run_goes_on(journal, graph, calls):
    replayer = ToyReplayer(interrupt_after=calls)
    with pytest.raises(KeyboardInterrupt):
        run(journal, replayer)
    assert all(session.is_closed for session in replayer.sessions)
    assert len(journal.read_text().splitlines()) == 1 + calls

    again = ToyReplayer()
    assert_same(run(journal, again), graph)
    assert len(again.calls) == 21 - calls
    assert len(again.sessions) == 3 - calls // 7  # a finished sample is not opened again


def test_a_finished_run_does_nothing(journal, graph):
    run(journal)
    replayer = ToyReplayer()
    assert_same(run(journal, replayer), graph)
    assert not replayer.sessions


@pytest.mark.parametrize("kept", [1, 20, -1, -2, -20])
def test_a_torn_last_line_is_measured_again(journal, graph, kept):
    run(journal)
    content = journal.read_bytes()
    lines = content.splitlines(keepends=True)
    journal.write_bytes(content[: len(lines[0]) + kept] if kept > 0 else content[:kept])
    assert_same(run(journal), graph)
    assert len(journal.read_bytes().splitlines()) == len(lines)
    assert_same(run(journal), graph)


def test_a_torn_first_line_starts_over(journal, graph):
    run(journal)
    journal.write_bytes(journal.read_bytes()[:40])
    assert_same(run(journal), graph)


@pytest.mark.parametrize("content", [b"my notes, without an end", b"notes\n", b'{"sample": 0}\n', b"\xff\xfe\n", b"\n"])
def test_a_foreign_file_is_left_alone(journal, content):
    journal.write_bytes(content)
    with pytest.raises(JournalError, match="no calibration journal"):
        run(journal)
    assert journal.read_bytes() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replayer": ToyReplayer(model="other")}, "provenance.model: 'toy' there, 'other' here"),
        ({"replayer": ToyReplayer(scheduler_config={"shift": 5.0})}, r"scheduler_config.shift: 3.0 there, 5.0 here"),
        ({"replayer": ToyReplayer(num_steps=8)}, "num_inference_steps: 9 there, 8 here"),
    ],
)
def test_the_journal_of_another_run_is_refused(journal, change, message):
    run(journal)
    before = journal.read_bytes()
    with pytest.raises(JournalError, match=f"another run .*{message}"):
        run(journal, **change)
    assert journal.read_bytes() == before


@pytest.mark.parametrize(
    ("samples", "max_span", "calls"),
    [(SAMPLES, 3, 0), (SAMPLES[1:], SPAN, 0), ([*SAMPLES, Sample("new", 0)], SPAN, 7), (SAMPLES, 5, 3 * 4)],
)
def test_a_run_with_other_samples_or_spans_measures_what_is_new(journal, tmp_path, samples, max_span, calls):
    run(journal)
    replayer = ToyReplayer()
    again = run(journal, replayer, samples, max_span)
    assert len(replayer.calls) == calls
    # products of matrices of other sizes may end in another last bit
    assert_same(again, run(tmp_path / "fresh.jsonl", samples=samples, max_span=max_span), rtol=1e-6)


def test_another_operator_measures_anew(journal):
    run(journal)
    replayer = ToyReplayer()
    run(journal, replayer, operator="residual-linear")
    assert len(replayer.calls) == 21


def test_an_unknown_operator_is_named(journal):
    with pytest.raises(CalibrationError, match="no operator 'magic'; it has noise, residual, residual-fitted"):
        run(journal, operator="magic")


GOOD = {"sample": ["a red cube", 0], "measure": "error", "segments": [[0, 2, "residual", [], []]], "values": [0.1]}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        json.dumps({"sample": 0, "step": 2}),
        json.dumps(GOOD | {"values": [0.1, 0.2]}),
        json.dumps(GOOD | {"sample": "a red cube"}),
        json.dumps(GOOD | {"measure": "luck"}),
        json.dumps(GOOD | {"segments": [[0, 9, "residual", [], []]]}),
        json.dumps(GOOD | {"segments": [[2, 2, "residual", [], []]]}),
        json.dumps(GOOD | {"segments": [[0, 2, 5, [], []]]}),
        json.dumps(GOOD | {"values": ["0.1"]}),
        json.dumps(GOOD | {"values": [-0.1]}),
        json.dumps(GOOD).replace("0.1", "NaN"),
    ],
)
def test_a_damaged_line_is_named(journal, line):
    run(journal)
    lines = journal.read_text().splitlines()
    lines[2] = line
    journal.write_text("\n".join(lines) + "\n")
    with pytest.raises(JournalError, match="line 3 is damaged"):
        run(journal)


@pytest.mark.parametrize("errors", [[0.1], [[0.1, 0.2]], [0.1, np.nan], [0.1, np.inf], [0.1, -1.0]])
def test_impossible_errors_are_refused(journal, errors):
    replayer = ToyReplayer()
    opened = replayer.open

    def tampered(sample):
        session = opened(sample)
        session.errors = lambda edges: np.array(errors) if len(edges) == 2 else np.full(len(edges), 0.1)
        return session

    replayer.open = tampered
    with pytest.raises(CalibrationError, match=r"2 finite errors >= 0 for the segments \[\(0, 3\), \(1, 3\)\]"):
        run(journal, replayer)
    assert replayer.sessions[0].is_closed
    assert len(journal.read_text().splitlines()) == 2  # the good unit before it is kept


@pytest.mark.parametrize(("samples", "max_span"), [([], 4), (SAMPLES, 1)])
def test_nothing_to_measure_is_refused(journal, samples, max_span):
    with pytest.raises(CalibrationError, match="at least one sample and max_span >= 2"):
        run(journal, samples=samples, max_span=max_span)
    assert not journal.exists()


@pytest.mark.parametrize("calls", [0, 10])
def test_progress_counts_the_forwards_of_this_call(journal, calls):
    if calls:
        with pytest.raises(KeyboardInterrupt):
            run(journal, ToyReplayer(interrupt_after=calls))
    seen = []
    replayer = ToyReplayer()
    run(journal, replayer, progress=lambda done, total: seen.append((done, total, replayer.model.forwards)))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1]
    assert len({total for _, total, _ in seen}) == 1
    assert all(done == forwards for done, _, forwards in seen)


def test_two_steps_need_no_replay(journal):
    graph = run(journal, ToyReplayer(num_steps=2))
    assert list(solve_all(graph)) == [2]


def test_two_runs_never_write_one_journal(journal):
    provenance = ToyReplayer().provenance()
    with Journal(journal, provenance), pytest.raises(JournalError, match="in use"):
        Journal(journal, provenance)
    with Journal(journal, provenance):
        pass
