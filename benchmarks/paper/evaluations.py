"""Evaluate plan entries on held-out samples, each once: what the file holds is not run again.

One JSON line an evaluation, keyed by what decides it: the setting (weights, sampler, steps, guidance, size), the sample
and the entry. So an interrupted benchmark goes on, and benchmarks share what they have in common.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks.models import OpenModel
from benchmarks.videos import Outcome, compare_videos, full_entry, make_videos
from lemica_planner import PlanEntry, Sample

__all__ = ["Evaluations", "Job", "entry_key"]

_ROWS_AT_ONCE = 8  # videos that are in memory together


class Job(NamedTuple):
    """A sample, and the entries that are to be evaluated on it."""

    sample: Sample
    entries: tuple[PlanEntry, ...]


class _Key(NamedTuple):
    setting: str
    prompt: str
    seed: int
    entry: str


class Evaluations:
    """Finished evaluations, in memory and on disk.

    Parameters
    ----------
    path : Path
        Lines are appended; one that cannot be read, such as one torn by a crash, is measured again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
        self._is_torn = lines[-1] != ""
        self._scores = dict(filter(None, map(_parsed, lines)))

    def jobs(self, opened: OpenModel, entries: Iterable[PlanEntry], samples: Sequence[Sample]) -> list[Job]:
        """Return what is left to run; of entries that make the same video, one."""
        setting = opened.key
        distinct = {entry_key(entry): entry for entry in entries}
        jobs = []
        for sample in samples:
            left = [
                entry
                for key, entry in distinct.items()
                if _Key(setting, sample.prompt, sample.seed, key) not in self._scores
            ]
            jobs += [Job(sample, tuple(left))] if left else []
        return jobs

    def run(self, opened: OpenModel, entries: Iterable[PlanEntry], samples: Sequence[Sample], label: str) -> None:
        """Evaluate every entry on every sample, with a progress bar named `label`."""
        jobs = self.jobs(opened, entries, samples)
        with tqdm(total=sum(len(job.entries) for job in jobs), desc=label, unit="video") as bar:
            for job in jobs:
                (full,) = make_videos(opened, [full_entry(opened.num_steps)], job.sample)
                for at in range(0, len(job.entries), _ROWS_AT_ONCE):
                    some = job.entries[at : at + _ROWS_AT_ONCE]
                    for entry, video in zip(some, make_videos(opened, some, job.sample), strict=True):
                        self._record(opened, job.sample, entry, compare_videos(video, full))
                    bar.update(len(some))

    def scores(self, opened: OpenModel, entry: PlanEntry, samples: Sequence[Sample]) -> list[Mapping[str, float]]:
        """Return each sample's measures by name; KeyError if one was not evaluated."""
        setting, key = opened.key, entry_key(entry)
        return [self._scores[_Key(setting, sample.prompt, sample.seed, key)] for sample in samples]

    def _record(self, opened: OpenModel, sample: Sample, entry: PlanEntry, outcome: Outcome) -> None:
        scores = outcome.scores()
        key = _Key(opened.key, sample.prompt, sample.seed, entry_key(entry))
        facts = {"model": opened.name, "weights": opened.model.info.weights_hash, "steps": list(entry.steps)}
        line = json.dumps({**key._asdict(), "scores": scores, **facts}) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + line if self._is_torn else line)
        self._is_torn = False
        self._scores[key] = scores


def entry_key(entry: PlanEntry) -> str:
    """Return what decides an entry's video, as a short text: T, and what every skipped step is made of."""
    fills = [[step, *fill] for step, fill in sorted(entry.reuse("residual").items())]
    return hashlib.sha256(json.dumps([entry.steps[-1], fills]).encode()).hexdigest()[:16]


def _parsed(line: str) -> tuple[_Key, Mapping[str, float]] | None:
    try:
        known: dict[str, Any] = json.loads(line)
        return _Key(*(known[name] for name in _Key._fields)), known["scores"]
    except (ValueError, KeyError, TypeError):
        return None
