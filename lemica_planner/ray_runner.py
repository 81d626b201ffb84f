"""Measure on many workers: the devices of one machine, or a Ray cluster.

A worker holds the trajectories of the samples that it is given. Batches are made before they are handed out and every
measurement goes into the one journal, so the graph does not depend on how many workers there are or which is first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import ray

from lemica_planner.errors import CalibrationError
from lemica_planner.journal import Grams
from lemica_planner.measuring import LocalRunner, Task
from lemica_planner.plan_entry import PlanEntry
from lemica_planner.provenance import Sample
from lemica_planner.replayer import Replayer

__all__ = ["RayRunner"]

_Named = TypeVar("_Named")


class RayRunner:
    """Runs tasks on Ray actors.

    Parameters
    ----------
    open_replayer : callable
        Opens the model on a worker; must be picklable.
    samples : sequence of Sample
        All that will be measured; they are dealt out to the workers in turn.
    workers : int
        Actors. With more of them than samples, several share a sample and each runs its trajectory.
    address : str or None
        Of a running cluster; None starts one on this machine. A connection that is there already is used.
    resources : mapping
        What an actor needs, such as ``{"num_gpus": 1}``; its processor cores set its threads.
    """

    def __init__(
        self,
        open_replayer: Callable[[], Replayer],
        samples: Sequence[Sample],
        *,
        workers: int,
        address: str | None = None,
        resources: dict[str, Any] | None = None,
    ) -> None:
        self._owns_cluster = not ray.is_initialized()
        if self._owns_cluster:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray reports its use where nobody can be asked
            ray.init(address=address, log_to_driver=False, include_dashboard=False)
        self._actors: list[Any] = []
        wanted = {"num_cpus": 1, **(resources or {})}
        self._require(workers, {"CPU": wanted["num_cpus"], "GPU": wanted.get("num_gpus", 0)})
        actor = ray.remote(_Worker).options(**wanted)
        self._actors.extend(actor.remote(open_replayer) for _ in range(workers))
        self.deal(samples)
        self.opened: Callable[[], None] = lambda: None
        self._ran: set[tuple[int, Sample]] = set()

    def deal(self, samples: Sequence[Sample]) -> None:
        """Deal out other samples; the workers keep the trajectories that they have."""
        self._places = {sample: place for place, sample in enumerate(samples)}

    def _require(self, workers: int, each: Mapping[str, float]) -> None:
        """Refuse more workers than the cluster has room for: they would wait for ever."""
        there = ray.cluster_resources()  # type: ignore[no-untyped-call]
        short = [name for name, amount in each.items() if workers * amount > there.get(name, 0)]
        if short:
            self.close()
            raise CalibrationError(
                f"{workers} workers need {workers * each[short[0]]:g} of {short[0]}, the cluster has "
                f"{there.get(short[0], 0):g}; give fewer workers"
            )

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Yield each task with what its session returned, as they finish."""
        yield from _as_finished(
            {self._actor(task.sample, number).measure.remote(task): task for number, task in enumerate(tasks)}
        )

    def outcomes(self, wanted: Mapping[Sample, Sequence[PlanEntry]]) -> Iterator[tuple[Sample, Any]]:
        """Yield each sample with what its paths change in the end, as they finish."""
        yield from _as_finished(
            {self._actor(sample).outcomes.remote(sample, tuple(paths)): sample for sample, paths in wanted.items()}
        )

    def unopened(self, samples: Iterable[Sample]) -> int:
        """Return how many trajectories must run first, as far as this process knows."""
        return len({(self._place(sample), sample) for sample in samples} - self._ran)

    def grams(self, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Grams]]:
        """Yield each sample with the products of its values, as they finish."""
        yield from _as_finished({self._actor(sample).grams.remote(sample): sample for sample in samples})

    def close(self) -> None:
        """End the workers, and the connection if this made it."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors.clear()
        if self._owns_cluster:
            ray.shutdown()

    def _place(self, sample: Sample, number: int = 0) -> int:
        """Return the worker of a sample; with workers to spare, the sample's tasks take turns on its own few."""
        share = max(1, len(self._actors) // len(self._places))
        return (self._places[sample] * share + number % share) % len(self._actors)

    def _actor(self, sample: Sample, number: int = 0) -> Any:
        place = self._place(sample, number)
        if (place, sample) not in self._ran:
            self._ran.add((place, sample))
            self.opened()
        return self._actors[place]


def _as_finished(waiting: dict[Any, _Named]) -> Iterator[tuple[_Named, Any]]:
    """Yield each name with the value of its reference."""
    while waiting:
        (done, *_), _ = ray.wait(list(waiting))
        yield waiting.pop(done), ray.get(done)


class _Worker:
    """One process with the model."""

    def __init__(self, open_replayer: Callable[[], Replayer]) -> None:
        self._runner = LocalRunner(open_replayer(), keep=1 << 30)

    def measure(self, task: Task) -> Any:
        return next(self._runner.run([task]))[1]

    def outcomes(self, sample: Sample, paths: Sequence[PlanEntry]) -> Any:
        return next(self._runner.outcomes({sample: paths}))[1]

    def grams(self, sample: Sample) -> Grams:
        return next(self._runner.grams([sample]))[1]
