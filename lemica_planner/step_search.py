"""Search steps and budget together.

Is a run of T steps of which B are computed better than one of B steps with a better sampler? Every way to spend B
forwards makes the same samples' videos, and each is compared with the same references. The video of the model's own
full run is one of them, but it favours ways that skip steps of that very run; so there is another, the same
differential equation solved with many steps. Knows nothing about models: a `SamplingReplayer` runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemica_planner.errors import CalibrationError
from lemica_planner.measuring import ProgressCallback
from lemica_planner.plan import CachePlan
from lemica_planner.provenance import Sample
from lemica_planner.replayer import SamplingReplayer
from lemica_planner.samplers import HELD, OWN, Sampler, Way
from lemica_planner.step_choice import Comparison
from lemica_planner.way_journal import FORMAT, Measured, WayJournal
from lemica_planner.way_plans import Planning, chosen_timesteps, even_ways, leaping_ways, measured_ways, planned_ways

__all__ = ["SearchSpace", "checks", "compare_ways", "own_references", "run_of", "search", "stated"]


def own_references(replayer: SamplingReplayer, sampler: Sampler, num_steps: int) -> dict[str, Way]:
    """Return what ways are compared with: the model's own full run, and that of a sampler with many steps."""
    own_steps = replayer.provenance().num_inference_steps
    return {"full": run_of(replayer, OWN, own_steps), "converged": run_of(replayer, sampler, num_steps)}


@dataclass(frozen=True)
class SearchSpace:
    """Which ways are tried.

    Attributes
    ----------
    costs : tuple of int
        Forwards.
    samplers : tuple of Sampler
        Run with as many steps as a cost allows.
    cached : tuple of Sampler
        Run with each of `steps`, of which as many are computed as a cost allows.
    steps : tuple of int
    operators : tuple of str
        What fills in skipped steps. Held noise is for samplers without a memory, where it makes bigger steps.
    even, measured : bool
        Whether computed steps are evenly spaced, and whether a calibration chooses them; both may be.
    reuse_timesteps : tuple of Sampler
        Run on the timesteps that plans with held noise compute; those that take given timesteps.
    leaping : tuple of Sampler
        Whose timesteps a calibration chooses, among those of each of `steps`; those that take given timesteps.
    plans : tuple of CachePlan
        Made before, for the model's own run.
    """

    costs: tuple[int, ...]
    samplers: tuple[Sampler, ...] = ()
    cached: tuple[Sampler, ...] = ()
    steps: tuple[int, ...] = ()
    operators: tuple[str, ...] = ()
    even: bool = True
    measured: bool = False
    reuse_timesteps: tuple[Sampler, ...] = ()
    leaping: tuple[Sampler, ...] = ()
    plans: tuple[CachePlan, ...] = ()

    def ways(self, replayer: SamplingReplayer, planning: Planning | None) -> Iterator[Way]:
        """Yield all ways; plans are calibrated on the way, so this may take long.

        Raises
        ------
        CalibrationError
            If there is nothing to calibrate on, an operator is unknown, or a calibration fails.
        """
        if (self.measured or self.leaping) and planning is None:
            raise CalibrationError("measured plans need prompts to calibrate on; give some, or leave them out")
        yield from (run_of(replayer, sampler, cost) for sampler in self.samplers for cost in self.costs)
        for plan in self.plans:
            own = replayer.provenance()
            yield from planned_ways(plan, own, run_of(replayer, OWN, own.num_inference_steps), self.costs)
        for sampler, num_steps in product(self.leaping, self.steps):
            assert planning
            yield from leaping_ways(replayer, run_of(replayer, sampler, num_steps), self.costs, planning)
        for sampler, num_steps in product(self.cached, self.steps):
            for way in self._planned(replayer, run_of(replayer, sampler, num_steps), planning):
                yield way
                if way.operator == HELD:
                    yield from (chosen_timesteps(replayer, way, other) for other in self.reuse_timesteps)

    def _planned(self, replayer: SamplingReplayer, base: Way, planning: Planning | None) -> Iterator[Way]:
        names = [name for name in self.operators if name != HELD or base.sampler.is_one_step]
        if self.even:
            yield from even_ways(replayer, base, names, self.costs, planning)
        if self.measured and planning:
            yield from measured_ways(replayer, base, names, self.costs, planning)


def run_of(replayer: SamplingReplayer, sampler: Sampler, num_steps: int) -> Way:
    """Return the sampler's run in that many steps, all of them computed."""
    if sampler == OWN:
        sampler = replace(OWN, scheduler=replayer.provenance().scheduler)
    return Way(sampler.resolved(num_steps, replayer.timesteps), num_steps)


def checks(references: Mapping[str, Way]) -> list[Way]:
    """Return what tells how good the references are: the full run itself, and the converged one with half its steps.

    Of given timesteps, every second one is left out from the end, so that the last stays.
    """
    full, converged = references["full"], references["converged"]
    given = converged.sampler.timesteps
    halved = given and given[::-2][::-1]
    return [full, Way(replace(converged.sampler, timesteps=halved), len(halved or ()) or converged.num_steps // 2)]


def search(
    replayer: SamplingReplayer,
    samples: Sequence[Sample],
    space: SearchSpace,
    references: Mapping[str, Way],
    *,
    planning: Planning | None,
    journal: Path,
    progress: ProgressCallback | None = None,
) -> Comparison:
    """Calibrate what `space` needs, and compare its ways and the references' `checks`; see `compare_ways`."""
    planning = planning and planning._replace(progress=progress)
    ways = [*checks(references), *space.ways(replayer, planning)]
    with WayJournal(journal, stated(replayer, references)) as rows:
        return compare_ways(replayer, samples, ways, references, journal=rows, progress=progress)


def stated(replayer: SamplingReplayer, references: Mapping[str, Way]) -> dict[str, Any]:
    """Return what a comparison is valid for, as JSON values."""
    return {
        "format": FORMAT,
        "provenance": replayer.provenance().to_dict(),
        "references": {name: way.to_dict() for name, way in references.items()},
        "measures": list(replayer.measures()),
    }


def compare_ways(
    replayer: SamplingReplayer,
    samples: Sequence[Sample],
    ways: Sequence[Way],
    references: Mapping[str, Way],
    *,
    journal: WayJournal,
    progress: ProgressCallback | None = None,
) -> Comparison:
    """Measure every way on every sample, and return all that the journal knows of these samples.

    Parameters
    ----------
    replayer : SamplingReplayer
    samples : sequence of Sample
        Other ones than those that plans were calibrated on.
    ways : sequence of Way
    references : mapping of str to Way
        By name, such as `own_references`; they run once for every sample that lacks something.
    journal : WayJournal
        Finished work; ways of earlier runs that are there for all samples are part of the comparison.
    progress : callable, optional
        Called as ``progress(done, total)``, in forwards.

    Raises
    ------
    CalibrationError
        If there are no samples or ways, or a measure is no number.
    """
    if not samples or not ways:
        raise CalibrationError(f"give samples and ways; got {len(samples)} and {len(ways)}")
    missing = {sample: [way for way in ways if journal.get(way, sample) is None] for sample in samples}
    done = _counter(missing, references, progress)
    for sample, due in missing.items():
        if not due:
            continue
        yardstick = replayer.yardstick(sample, references)
        done(sum(way.cost for way in references.values()))
        for way in due:
            journal.record(way, sample, _valid(yardstick.measure(way), way, sample))
            done(way.cost)
    return _gather(journal, samples, references)


def _counter(
    missing: Mapping[Sample, Sequence[Way]], references: Mapping[str, Way], progress: ProgressCallback | None
) -> Callable[[int], None]:
    once = sum(way.cost for way in references.values())
    total = sum(sum(way.cost for way in due) + once for due in missing.values() if due)
    finished = 0

    def done(forwards: int) -> None:
        nonlocal finished
        finished += forwards
        if progress:
            progress(finished, total)

    return done


def _valid(values: Measured, way: Way, sample: Sample) -> Measured:
    numbers = [value for measures in values.values() for value in measures.values()]
    if not numbers or not np.isfinite(numbers).all():
        raise CalibrationError(f"the measures of {way.name} on {sample} must be finite numbers; got {values}")
    return values


def _gather(journal: WayJournal, samples: Sequence[Sample], references: Mapping[str, Way]) -> Comparison:
    known = {key: [journal.get(way, sample) for sample in samples] for key, way in journal.ways.items()}
    whole = {key: [row for row in rows if row is not None] for key, rows in known.items()}
    whole = {key: rows for key, rows in whole.items() if len(rows) == len(samples)}
    first = next(iter(whole.values()))[0]
    values: dict[tuple[str, str], NDArray[np.float64]] = {
        (reference, measure): np.array([[row[reference][measure] for row in rows] for rows in whole.values()])
        for reference, measures in first.items()
        for measure in measures
    }
    return Comparison(tuple(journal.ways[key] for key in whole), tuple(samples), values, dict(references))
