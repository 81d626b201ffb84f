"""Run every plan on every video, within a time limit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from tqdm import tqdm

from benchmarks.far_prompts.cases import Case
from benchmarks.far_prompts.plans import Rivals, Ways
from benchmarks.far_prompts.runs import Result, Runs
from lemica_planner import Sample

__all__ = ["Depth", "Finding", "survey"]


class Depth(NamedTuple):
    """How much is done: the first `deep` prompts of a group run with every plan, `twins` of them for a second seed.

    If `groups` are named, that is so in these alone.
    """

    deep: int
    twins: int
    groups: frozenset[str] = frozenset()

    def has_oracle(self, case: Case) -> bool:
        """Return whether every plan is run on the case."""
        is_named = not self.groups or case.group in self.groups
        return is_named and case.round == 0 and case.number < self.deep


class Finding(NamedTuple):
    """One video and how it came out, by method and budget."""

    case: Case
    results: dict[tuple[str, int], Result]


def survey(
    cases: Sequence[Case], rivals: Rivals, runs: Runs, depth: Depth, minutes: float | None
) -> list[Finding] | None:
    """Return every case with its results, or None if the time was up before."""
    end = time.monotonic() + 60 * minutes if minutes else float("inf")
    findings = []
    for case in tqdm(sorted(cases, key=lambda case: (depth.has_oracle(case), case.round, case.number))):
        if time.monotonic() > end:
            return None
        ways = _ways(case, cases, rivals, depth)
        findings.append(Finding(case, dict(zip(ways, runs.results(case.sample, list(ways.values())), strict=True))))
    return findings


def _ways(case: Case, cases: Sequence[Case], rivals: Rivals, depth: Depth) -> Ways:
    if not depth.has_oracle(case):
        return {("shared", budget): way for budget, way in rivals.shared.items()}
    ways = rivals.common() | rivals.own(case.sample)
    if case.number < depth.twins:
        ways |= rivals.of_other_seed(_twin(case, cases))
    return ways


def _twin(case: Case, cases: Sequence[Case]) -> Sample:
    """Return the same prompt's video of the next round."""
    return next(
        other.sample for other in cases if other.sample.prompt == case.sample.prompt and other.round == case.round + 1
    )
