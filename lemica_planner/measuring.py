"""Measure segments of samples, each once: what is in the journal is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lemica_planner.errors import CalibrationError
from lemica_planner.journal import Grams, Journal, Measure
from lemica_planner.plan_entry import PlanEntry
from lemica_planner.provenance import Sample
from lemica_planner.replayer import Replayer, ReplaySession, Segment

__all__ = ["LocalRunner", "Measurer", "Meter", "ProgressCallback", "Runner", "Task"]

ProgressCallback = Callable[[int, int], None]
_DRIFTS_AT_ONCE = 512


class Task(NamedTuple):
    """Segments of one sample that are measured in one call; the batch is the same however many workers there are."""

    sample: Sample
    measure: Measure
    segments: tuple[Segment, ...]


class Runner(Protocol):
    """Runs tasks somewhere, in any order; `opened` is called whenever a trajectory has run."""

    opened: Callable[[], None]

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Yield each task with what its session returned."""
        ...

    def unopened(self, samples: Iterable[Sample]) -> int:
        """Return how many trajectories must run first."""
        ...

    def grams(self, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Grams]]:
        """Yield each sample with the products of its values, see `ReplaySession.grams`."""
        ...

    def outcomes(self, wanted: Mapping[Sample, Sequence[PlanEntry]]) -> Iterator[tuple[Sample, Any]]:
        """Yield each sample with what its paths change in the end, in any order."""
        ...

    def close(self) -> None:
        """Drop every session."""
        ...


class LocalRunner:
    """Runs tasks in this process, sample by sample.

    Parameters
    ----------
    replayer : Replayer
    keep : int
        Trajectories held at once; one that was dropped is run again when it is needed.
    """

    def __init__(self, replayer: Replayer, *, keep: int) -> None:
        self.opened: Callable[[], None] = lambda: None
        self._replayer = replayer
        self._keep = keep
        self._sessions: dict[Sample, ReplaySession] = {}

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Yield each task with what its session returned, in order."""
        for task in tasks:
            session = self._session(task.sample)
            measure = session.errors if task.measure == "error" else session.drifts
            yield task, measure(task.segments)

    def unopened(self, samples: Iterable[Sample]) -> int:
        """Return how many trajectories must run first."""
        return len(set(samples) - self._sessions.keys())

    def outcomes(self, wanted: Mapping[Sample, Sequence[PlanEntry]]) -> Iterator[tuple[Sample, Any]]:
        """Yield each sample with what its paths change in the end, in order."""
        for sample, paths in wanted.items():
            yield sample, self._session(sample).outcomes(paths)

    def grams(self, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Grams]]:
        """Yield each sample with the products of its values, in order."""
        for sample in samples:
            yield sample, self._session(sample).grams()

    def close(self) -> None:
        """Drop every session."""
        while self._sessions:
            self._sessions.popitem()[1].close()

    def _session(self, sample: Sample) -> ReplaySession:
        if sample not in self._sessions:
            while len(self._sessions) >= self._keep:
                self._sessions.pop(next(iter(self._sessions))).close()
            self._sessions[sample] = self._replayer.open(sample)
            self.opened()
        return self._sessions[sample]


class Meter:
    """Counts forwards of one row: those done, and those known to be left.

    Parameters
    ----------
    num_steps : int
        Steps T of a trajectory.
    callback : callable, optional
        Called as ``callback(done, total)`` at every change.
    """

    def __init__(self, num_steps: int, callback: ProgressCallback | None = None) -> None:
        self._num_steps = num_steps
        self._callback = callback or (lambda done, total: None)
        self.done = 0
        self._expected = 0

    def expect(self, tasks: Sequence[Task], trajectories: int) -> None:
        """Say what is begun now: the total is at least that."""
        cost = self.cost(tasks, trajectories)
        self._expected = max(self._expected, self.done + cost)
        if cost:
            self._callback(self.done, self._expected)

    def foresee(self, forwards: int) -> None:
        """Say what is probably left in all, more or less than was thought before; it is told when work begins."""
        self._expected = self.done + forwards

    def settle(self) -> None:
        """Say that nothing is left."""
        if self.done:
            self._expected = self.done
            self._callback(self.done, self._expected)

    def opened(self) -> None:
        """Count a trajectory as done."""
        self._add(self._num_steps)

    def did(self, task: Task) -> None:
        """Count a task as done."""
        self._add(self._cost(task))

    def ran(self, forwards: int) -> None:
        """Count forwards that nobody expected."""
        self._add(forwards)

    def cost(self, tasks: Sequence[Task], trajectories: int) -> int:
        """Return the forwards of tasks, and of trajectories that must run first."""
        return sum(map(self._cost, tasks)) + trajectories * self._num_steps

    def _cost(self, task: Task) -> int:
        """Return the forwards of a task: a drift needs none."""
        return sum(self._num_steps - segment.end for segment in task.segments) if task.measure == "error" else 0

    def _add(self, forwards: int) -> None:
        self.done += forwards
        self._expected = max(self._expected, self.done)
        self._callback(self.done, self._expected)


class Measurer:
    """Measures through a runner and keeps everything in the journal; a context manager that owns the runner.

    Parameters
    ----------
    runner : Runner
    journal : Journal
    meter : Meter
    """

    def __init__(self, runner: Runner, journal: Journal, meter: Meter) -> None:
        runner.opened = meter.opened
        self._runner = runner
        self._journal = journal
        self._meter = meter

    def __enter__(self) -> Self:
        """Return the measurer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the runner."""
        self._runner.close()

    def measure(self, measure: Measure, wanted: Mapping[Sample, Iterable[Segment]]) -> None:
        """Measure what the journal lacks."""
        tasks = self.tasks(measure, wanted)
        self._meter.expect(tasks, self._unopened(tasks))
        for task, values in self._runner.run(tasks):
            self._journal.record(task.sample, measure, task.segments, _valid(values, task))
            self._meter.did(task)

    def forwards(self, measure: Measure, wanted: Mapping[Sample, Iterable[Segment]]) -> int:
        """Return what measuring this will take, trajectories left out."""
        return self._meter.cost(self.tasks(measure, wanted), 0)

    def foresee(self, forwards: int, trajectories: Iterable[Sample]) -> None:
        """Say how many forwards are probably left, and the trajectories of which samples they need."""
        self._meter.foresee(forwards + self._meter.cost([], self._runner.unopened(trajectories)))

    def settle(self) -> None:
        """Say that nothing is left."""
        self._meter.settle()

    def known_forwards(self, samples: Sequence[Sample], operators: Collection[str], max_span: int) -> int:
        """Return the forwards of the errors of such segments that are known by now."""
        return sum(
            self._journal.num_steps - segment.end
            for sample in samples
            for segment in self._journal.measured(sample, "error")
            if segment.operator in operators and segment.end - segment.start <= max_span
        )

    def known_paths(self, sample: Sample, budget: int) -> int:
        """Return how many whole paths of so many computed steps were run on the sample by now."""
        return self._journal.paths_run(sample, budget)

    def grams(self, samples: Sequence[Sample], parts: Iterable[str]) -> Grams:
        """Return by part of a value the products of every two steps, a mean over `samples`, shape (T, T)."""
        wanted = list(parts)
        missing = [sample for sample in samples if not self._journal.grams(sample).keys() >= set(wanted)]
        self._meter.expect([], self._runner.unopened(missing))
        for sample, grams in self._runner.grams(missing):
            self._journal.record_grams(sample, grams)
        known = [self._journal.grams(sample) for sample in samples]
        return {part: np.mean([grams[part] for grams in known], axis=0) for part in wanted}

    def outcomes(self, samples: Sequence[Sample], paths: Sequence[PlanEntry]) -> NDArray[np.float64]:
        """Return what each whole path changes in each sample's end result, shape (samples, paths)."""
        known = self._journal.outcome
        missing = {each: [path for path in paths if known(each, path) is None] for each in samples}
        wanted = {sample: some for sample, some in missing.items() if some}
        self._meter.expect([], self._runner.unopened(wanted))
        for sample, values in self._runner.outcomes(wanted):
            self._journal.record_outcomes(sample, wanted[sample], _valid_outcomes(values, len(wanted[sample])))
            self._meter.ran(sum(path.budget for path in wanted[sample]))
        return np.array([[self._journal.outcome(sample, path) for path in paths] for sample in samples], np.float64)

    def tasks(self, measure: Measure, wanted: Mapping[Sample, Iterable[Segment]]) -> list[Task]:
        """Return what is missing in batches: errors by their end, because they share the steps from there on."""
        return [
            Task(sample, measure, batch)
            for sample, segments in wanted.items()
            for batch in _batches(measure, self._journal.missing(sample, measure, list(segments)))
        ]

    def _unopened(self, tasks: Sequence[Task]) -> int:
        return self._runner.unopened(task.sample for task in tasks)

    def value(self, sample: Sample, measure: Measure, segment: Segment) -> float:
        """Return what was measured; KeyError if it was not."""
        return self._journal.value(sample, measure, segment)


def _batches(measure: Measure, segments: Sequence[Segment]) -> Iterator[tuple[Segment, ...]]:
    if measure == "drift":
        yield from (tuple(segments[at : at + _DRIFTS_AT_ONCE]) for at in range(0, len(segments), _DRIFTS_AT_ONCE))
        return
    for end in sorted({segment.end for segment in segments}):
        yield tuple(segment for segment in segments if segment.end == end)


def _valid_outcomes(values: Any, count: int) -> list[float]:
    outcomes = np.asarray(values, np.float64)
    if outcomes.shape != (count,) or not np.all(np.isfinite(outcomes) & (outcomes >= 0)):
        raise CalibrationError(f"the replayer must return {count} finite outcomes >= 0; got {outcomes.tolist()}")
    return [float(outcome) for outcome in outcomes]


def _valid(values: Any, task: Task) -> list[float]:
    errors = np.asarray(values, np.float64)
    if errors.shape != (len(task.segments),) or not np.all(np.isfinite(errors) & (errors >= 0)):
        raise CalibrationError(
            f"the replayer must return {len(task.segments)} finite errors >= 0 for the segments "
            f"{[(segment.start, segment.end) for segment in task.segments]} of {task.sample}; "
            f"got {errors.tolist()}; look for NaN or overflow in the model's latents"
        )
    return [float(error) for error in errors]
