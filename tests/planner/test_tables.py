"""What the command line prints fits the terminal; shown on the plan that ships."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lemica_planner.cli import app
from lemica_planner.config_writer import read_plan
from lemica_planner.tables import choice_table

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "model_repository" / "latte_shapes"


def shown():
    result = CliRunner().invoke(app, ["show", str(EMBEDDED)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("columns", [80, 200])
def test_show_fits_the_terminal(monkeypatch, columns):
    """Every budget is one line with its whole picture; the steps as numbers are there where they fit."""
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = [line.rstrip() for line in shown().splitlines()]
    assert max(map(len, lines)) <= columns
    plan = read_plan(EMBEDDED / "config.pbtxt")
    assert plan.provenance.weights_hash[:40] in "\n".join(lines)
    for budget, entry in plan.entries.items():
        picture = "".join("█" if step in entry.steps else "·" for step in range(50))
        (line,) = (line for line in lines if line.lstrip().startswith(f"{budget} ") and "█" in line)
        assert picture in line
        assert line.endswith("█") == (columns == 80)


def test_show_folds_where_nothing_fits(monkeypatch):
    """A picture longer than the terminal goes on in the next line, whole."""
    monkeypatch.setenv("COLUMNS", "40")
    text = shown().partition("plan ")[2]
    assert sum(text.count(mark) for mark in "█·") == 50 * len(read_plan(EMBEDDED / "config.pbtxt").entries) + 2


def test_choices_of_steps_fit_a_narrow_terminal():
    choices = json.loads((ROOT / "benchmarks" / "results" / "steps.json").read_text())["choices"]
    console = Console(width=80, file=io.StringIO())
    console.print(choice_table(choices))
    text = console.file.getvalue()
    assert "…" not in text
    assert {line.split()[-1] for line in text.splitlines()[2:] if line[34:37] in ("no ", "yes")} == {
        f"{choice['best'][kind]['value']:.4g}" for choice in choices for kind in ("uncached", "cached")
    }
