"""docs/flow.md names files and functions; each has to be there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("backend", "client/lemica_client", "lemica_planner")
NAMED = re.compile(r"`([\w/]+\.py): ([A-Za-z_][\w.]+)`")


def test_every_function_that_the_flow_names_is_in_its_file():
    text = re.sub(r"\s+", " ", (ROOT / "docs" / "flow.md").read_text())
    named = NAMED.findall(text)
    assert len(named) > 40
    assert [f"{file}: {name}" for file, name in named if not any(has(path, name) for path in paths(file))] == []


def paths(file):
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob(Path(file).name)]
    return [path for path in found if str(path).endswith(file)]


def has(path, name):
    return all(re.search(rf"\b(?:def|class) {part}\b", path.read_text()) for part in name.split("."))
