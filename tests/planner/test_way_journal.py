import pytest

from lemica_planner import JournalError, Sample
from lemica_planner.samplers import Way, parse_sampler
from lemica_planner.way_journal import WayJournal

STATED = {"format": "lemica-steps-1", "provenance": {}}
SAMPLE = Sample("a", 1)
ONE, TWO = (Way(parse_sampler("ddim"), steps) for steps in (3, 4))
VALUES = {"full": {"latents_l1": 0.5}}


@pytest.fixture
def path(tmp_path):
    with WayJournal(tmp_path / "rows.jsonl", STATED) as journal:
        journal.record(ONE, SAMPLE, VALUES)
        journal.record(TWO, SAMPLE, VALUES)
    return tmp_path / "rows.jsonl"


def test_rows_survive(path):
    with WayJournal(path, STATED) as journal:
        assert journal.get(ONE, SAMPLE) == VALUES
        assert journal.get(ONE, Sample("a", 2)) is None
        assert list(journal.ways.values()) == [ONE, TWO]


def test_a_torn_line_is_dropped_and_measured_again(path):
    path.write_bytes(path.read_bytes()[:-5])
    with WayJournal(path, STATED) as journal:
        assert journal.get(TWO, SAMPLE) is None
        journal.record(TWO, SAMPLE, VALUES)
    with WayJournal(path, STATED) as journal:
        assert journal.get(TWO, SAMPLE) == VALUES


@pytest.mark.parametrize("torn", [0, 10])
def test_a_journal_that_never_began_begins(path, torn):
    path.write_bytes(path.read_bytes()[:torn])
    with WayJournal(path, STATED) as journal:
        assert not journal.ways
        journal.record(ONE, SAMPLE, VALUES)
    with WayJournal(path, STATED) as journal:
        assert journal.get(ONE, SAMPLE) == VALUES


def test_another_comparison_is_refused(path):
    with pytest.raises(JournalError, match="another comparison"):
        WayJournal(path, STATED | {"measures": ["lpips"]})


@pytest.mark.parametrize("line", ["{}", "nonsense", '{"way": {}, "sample": ["a", 1], "values": {}}'])
def test_a_damaged_line_is_named(path, line):
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(JournalError, match="line 4 is damaged"):
        WayJournal(path, STATED)


def test_two_runs_at_once_are_refused(path):
    with WayJournal(path, STATED), pytest.raises(JournalError, match="in use"):
        WayJournal(path, STATED)
