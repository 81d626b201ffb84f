"""Run methods at budgets on held-out samples, and say how they compare: what the four commands share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.models import OpenModel
from benchmarks.paper.evaluations import Evaluations, entry_key
from benchmarks.paper.scores import MEASURES, Interval, Row, difference, stacked
from lemica_planner import PlanEntry, Sample

__all__ = ["Case", "Report", "Trial", "about"]

_LOG_WIDTH = 160  # of tables that go to a file
_HEADINGS = {
    "table2": "The paper's table 2: calibration samples",
    "table3": "The paper's table 3: minimax against the shortest path",
    "temporal": "A plan on schedules of other lengths",
    "transfer": "A plan under other guidance",
}


class Case(NamedTuple):
    """A method at a budget.

    Attributes
    ----------
    method : str
    budget : int
        Computed steps.
    entries : tuple of PlanEntry
        One for each calibration draw; a single one where nothing is drawn.
    """

    method: str
    budget: int
    entries: tuple[PlanEntry, ...]


@dataclass(frozen=True, eq=False)
class Trial:
    """Methods to compare on one setting.

    Attributes
    ----------
    opened : OpenModel
        Makes the videos, in full and with every entry.
    title : str
        Names the setting in the tables.
    cases : sequence of Case
    pairs : sequence of (str, str)
        Methods whose paired difference is shown, first less second, at every budget that both have.
    """

    opened: OpenModel
    title: str
    cases: Sequence[Case]
    pairs: Sequence[tuple[str, str]] = ()


@dataclass
class Report:
    """What a command found.

    Attributes
    ----------
    command : str
    facts : dict
        What it was measured with, as JSON values.
    rows, differences : list of Row
    notes : list of str
        Sentences to print below the tables.
    """

    command: str
    facts: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    differences: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, trial: Trial, samples: Sequence[Sample], evaluations: Evaluations) -> None:
        """Run what the trial lacks, and take in a row for each case and the paired differences."""
        entries = (entry for case in trial.cases for entry in case.entries)
        evaluations.run(trial.opened, entries, samples, trial.title)
        rows = [_row(trial, case, samples, evaluations) for case in trial.cases]
        self.rows += rows
        self.differences += _differences(rows, trial.pairs)

    def show(self, console: Console) -> None:
        """Print the tables and notes."""
        for group in dict.fromkeys(row.group for row in self.rows):
            console.print(_table(group, [row for row in self.rows if row.group == group]))
            paired = [row for row in self.differences if row.group == group]
            if paired:
                console.print(_table(f"{group}: paired differences", paired))
        for note in self.notes:
            console.print(note, soft_wrap=True)

    def to_json(self) -> str:
        """Return everything on one line."""
        rows, differences = ([row.to_dict() for row in some] for some in (self.rows, self.differences))
        words = {"heading": self._heading(), "about": about(self.facts)}
        known = {"command": self.command, **words, **self.facts, "rows": rows, "differences": differences}
        return json.dumps({**known, "curves": self._curves(), "notes": self.notes})

    def finish(self, output: Path | None) -> None:
        """Print the tables, then the JSON as the last line, and write it to `output`."""
        width = None if Console().is_terminal else _LOG_WIDTH
        self.show(Console(highlight=False, markup=False, width=width))
        print(self.to_json())
        if output:
            output.write_text(self.to_json() + "\n", encoding="utf-8")

    def _heading(self) -> str:
        several = self.command == "transfer" and len(self.facts["models"]) > 1
        return "The plans of models on each other" if several else _HEADINGS[self.command]

    def _curves(self) -> dict[str, Any]:
        """Return for every measure the rows that a plot over computed steps needs, one plot a group."""
        groups = list(dict.fromkeys(row.group for row in self.rows))
        return {
            measure.key if len(groups) == 1 else f"{measure.key}, {group}": {
                "title": f"{measure.title}, {group}",
                "unit": measure.unit,
                "rows": [_point(row, row.intervals()[measure.key]) for row in self.rows if row.group == group],
            }
            for group in groups
            for measure in MEASURES
        }


def about(facts: Mapping[str, Any]) -> str:
    """Say in two sentences what a report was measured with, and what its intervals are over."""
    draws, samples = facts.get("draws", 1), facts.get("calibration_samples")
    each = f" of {samples} sample{'s' * (samples != 1)}" if samples else ""
    over = "prompts and calibrations" if draws > 1 else "prompts only"
    return (
        f"The paper's operator and metric, {draws} calibration{'s' * (draws != 1)}{each}, {facts['prompts']} held-out "
        f"prompts. The intervals are over {over}."
    )


def _row(trial: Trial, case: Case, samples: Sequence[Sample], evaluations: Evaluations) -> Row:
    scores = [evaluations.scores(trial.opened, entry, samples) for entry in case.entries]
    distinct = {entry_key(entry): entry.steps for entry in case.entries}
    return Row(trial.title, case.budget, case.method, stacked(scores), tuple(distinct.values()))


def _differences(rows: Sequence[Row], pairs: Iterable[tuple[str, str]]) -> Iterable[Row]:
    known: Mapping[tuple[str, int], Row] = {(row.method, row.budget): row for row in rows}
    budgets = dict.fromkeys(row.budget for row in rows)
    for budget in budgets:
        for first, second in pairs:
            if (first, budget) in known and (second, budget) in known:
                yield difference(known[first, budget], known[second, budget])


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table("budget", "method", "plans", *(measure.title for measure in MEASURES), title=title)
    for row in rows:
        found = row.intervals()
        cells = (_cell(found[measure.key]) for measure in MEASURES)
        table.add_row(str(row.budget), row.method, str(len(row.steps) or ""), *cells)
    return table


def _cell(found: Interval) -> str:
    return f"{found.value:.4g} ({found.low:.4g} to {found.high:.4g})"


def _point(row: Row, found: Interval) -> dict[str, str | float]:
    return {"method": row.method, "forwards": row.budget, **found._asdict()}
