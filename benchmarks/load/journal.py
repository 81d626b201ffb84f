"""Rows on disk, one JSON object a line, so that a run that was interrupted goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class JournalError(ValueError):
    """The file is of a run with other settings."""


class Journal:
    """A file that begins with the settings of a run and goes on with its rows.

    Parameters
    ----------
    path : Path
        Made with its folder if it is not there. A last line that a killed run left unfinished is cut off.
    settings : mapping
        What has to be the same for rows to belong together, JSON-ready.

    Raises
    ------
    JournalError
        If the file has other settings; the message names what differs.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        whole, newline, torn = path.read_text(encoding="utf-8").rpartition("\n")
        if torn:
            path.write_text(whole + newline, encoding="utf-8")
        lines = [json.loads(line) for line in whole.splitlines()]
        if not lines:
            self._write(dict(settings))
        elif lines[0] != json.loads(json.dumps(settings)):
            raise JournalError(_difference(path, lines[0], settings))
        self.rows: list[dict[str, Any]] = lines[1:]

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, in memory and in the file."""
        self.rows.append(dict(row))
        self._write(row)

    def find(self, **wanted: Any) -> dict[str, Any] | None:
        """Return the first row with these values."""
        return next((row for row in self.rows if wanted.items() <= row.items()), None)

    def _write(self, row: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _difference(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    facts = "; ".join(f"{name} was {there.get(name)!r} and is {here.get(name)!r}" for name in names)
    return f"{path} is of a run with other settings ({facts}): give the same, another --journal, or delete it"
