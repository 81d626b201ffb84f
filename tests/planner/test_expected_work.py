"""The total that a lazy calibration foresees, against what it then takes: on a model that it was not fitted on."""

import pytest

from lemica_planner import OperatorFacts, Sample
from lemica_planner.calibration_cost import naive_forwards
from lemica_planner.expected_work import search_forwards
from lemica_planner.lazy import calibrate_lazily
from tests.planner.test_lazy import ALL, BUDGETS, SAMPLES, SPAN, STEPS, run
from tests.planner.toy_replayer import ToyReplayer

OPERATORS = (("residual",), ("residual-linear",), ALL)
LEAST, MOST = 0.6, 1.6  # of what is done in the end
REFINE = 6


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.jsonl"


def watched(journal, **options):
    """Run a calibration; return what it told of its progress, and the forwards that really ran."""
    seen, replayer = [], ToyReplayer(STEPS)
    run(journal, replayer, progress=lambda done, total: seen.append((done, total)), **options)
    return seen, replayer.model.forwards


def interrupt(journal, calls, **options):
    with pytest.raises(KeyboardInterrupt):
        run(journal, ToyReplayer(STEPS, interrupt_after=calls), **options)


def is_honest(seen, ran):
    """Whether the bar ends full, with what ran, and every total on the way was near that."""
    assert seen[0][0] == 0
    assert seen[-1] == (ran, ran)
    return all(LEAST * ran <= total <= MOST * ran for _, total in seen)


@pytest.mark.parametrize("operators", OPERATORS)
@pytest.mark.parametrize("refine", [0, REFINE])
@pytest.mark.parametrize("budgets", [BUDGETS, [8]])
def test_the_total_is_foreseen_from_the_first_forward_on(journal, operators, refine, budgets):
    assert is_honest(*watched(journal, operators=operators, refine=refine, budgets=budgets))


@pytest.mark.parametrize("calls", [3, 15, 30])
@pytest.mark.parametrize("operators", OPERATORS)
@pytest.mark.parametrize("refine", [0, REFINE])
def test_a_resumed_run_begins_with_what_is_left(journal, calls, operators, refine):
    options = {"operators": operators, "refine": refine}
    interrupt(journal, calls, **options)
    assert is_honest(*watched(journal, **options))


def test_a_finished_run_has_nothing_to_tell(journal):
    run(journal, refine=REFINE)
    assert watched(journal, refine=REFINE) == ([], 0)


def test_refinement_is_counted_from_the_first_forward_on(journal, tmp_path):
    plain, _ = watched(tmp_path / "plain")
    refined, _ = watched(journal, refine=REFINE)
    assert refined[0][1] - plain[0][1] == REFINE * sum(BUDGETS) * len(SAMPLES)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_run_that_was_interrupted_while_it_refined_counts_the_paths_that_are_left(journal, share):
    run(journal, refine=REFINE)
    lines = journal.read_bytes().splitlines(keepends=True)
    paths = [at for at, line in enumerate(lines) if b'"paths"' in line]
    journal.write_bytes(b"".join(lines[: paths[int(share * len(paths))]]))
    ((_, first), *_), ran = watched(journal, refine=REFINE)
    assert ran <= first <= 1.2 * ran  # a search may end before it has run all that it may


def test_other_measurements_of_the_journal_are_no_work(journal):
    """What another run measured is neither done again nor expected."""
    run(journal, budgets=range(5, 24), confirm=0, checks=10**6)
    assert is_honest(*watched(journal, budgets=[9], refine=1, checks=0))


def test_with_regret_only_the_samples_of_the_round_are_foreseen(journal):
    samples, seen = [Sample(f"cube {seed}", seed) for seed in range(8)], []
    known = {"max_span": SPAN, "budgets": BUDGETS, "regret": 9.0, "checks": 0}
    calibrate_lazily(ToyReplayer(STEPS), samples, journal=journal, progress=lambda *each: seen.append(each), **known)
    assert is_honest(seen, seen[-1][0])


def test_a_search_is_never_expected_to_take_more_than_every_edge():
    facts = [OperatorFacts(0)]
    assert search_forwards(10, 2, 8, facts) == naive_forwards(10, 2) - 10
    assert search_forwards(50, 10, 3, facts) < search_forwards(50, 10, 3, [OperatorFacts(1)])
