"""The prompts of `benchmarks.far_prompts`, by group, and their seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from demo.measure import read_prompts
from lemica_planner import Sample

__all__ = ["Case", "make_cases", "read_groups"]

FIRST_SEED = 500_000
_ROUND = 1000  # seeds between two rounds
_EMPTY = '""'


class Case(NamedTuple):
    """One video to make; `number` counts the prompts of its group, and `round` the seeds of its prompt."""

    group: str
    sample: Sample
    number: int
    round: int


def read_groups(path: Path) -> dict[str, tuple[str, ...]]:
    """Read ``[group]`` lines and one prompt a line below each; ``""`` is the empty prompt.

    Raises
    ------
    ValueError
        If a prompt stands before the first group.
    """
    groups: dict[str, tuple[str, ...]] = {}
    name = None
    for line in read_prompts(path):
        if line.startswith("[") and line.endswith("]"):
            name = line[1:-1]
        elif name is None:
            raise ValueError(f"{path}: {line!r} stands before the first [group]")
        else:
            groups[name] = (*groups.get(name, ()), "" if line == _EMPTY else line)
    return groups


def make_cases(groups: Mapping[str, Sequence[str]], rounds: int) -> list[Case]:
    """Return every prompt with `rounds` seeds, one round after the other; no two videos share a seed."""
    prompts = [(group, number, prompt) for group, texts in groups.items() for number, prompt in enumerate(texts)]
    return [
        Case(group, Sample(prompt, FIRST_SEED + _ROUND * each + place), number, each)
        for each in range(rounds)
        for place, (group, number, prompt) in enumerate(prompts)
    ]
