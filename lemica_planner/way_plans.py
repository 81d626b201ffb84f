"""Plans for ways that skip steps: evenly spaced, or measured by a lazy calibration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

from lemica_planner.errors import CalibrationError
from lemica_planner.forecast import fit_weights
from lemica_planner.journal import Grams, Journal
from lemica_planner.lazy import calibrate_lazily
from lemica_planner.measuring import LocalRunner, Measurer, Meter, ProgressCallback
from lemica_planner.plan import CachePlan
from lemica_planner.plan_entry import PlanEntry
from lemica_planner.provenance import Provenance, Sample
from lemica_planner.replayer import OperatorFacts, Replayer, SamplingReplayer
from lemica_planner.samplers import Sampler, Way
from lemica_planner.solver import uniform_steps

__all__ = ["Planning", "chosen_timesteps", "even_ways", "leaping_ways", "measured_ways", "planned_ways", "span_for"]

_SERVED = ("weights_hash", "scheduler", "scheduler_config", "guidance_scale", "num_inference_steps")
_SLACK = 1.4  # the longest edge of a measured plan, in even spacings of its smallest budget


def span_for(num_steps: int, budgets: Sequence[int]) -> int:
    """Return how long edges may be, so that the smallest budget has room to be uneven.

    Examples
    --------
    >>> span_for(50, [25, 8])
    10
    """
    return min(num_steps - 1, max(2, round(_SLACK * (num_steps - 1) / (min(budgets) - 1))))


class Planning(NamedTuple):
    """What a calibration runs on.

    Attributes
    ----------
    samples : tuple of Sample
        Calibration samples; other ones than those the ways are compared on.
    folder : Path
        Where the journals go, one for each sampler and number of steps.
    refine : int
        Whole paths to try for each cost, see `lemica_planner.refine`.
    progress : callable or None
        See `lemica_planner.calibrate.calibrate`.
    """

    samples: tuple[Sample, ...]
    folder: Path
    refine: int = 0
    progress: ProgressCallback | None = None

    def journal(self, base: Way) -> Path:
        """Return the journal's path."""
        return self.folder / f"{base.sampler.name}-{base.num_steps}.jsonl"


def even_ways(
    replayer: SamplingReplayer,
    base: Way,
    operators: Sequence[str],
    costs: Sequence[int],
    planning: Planning | None,
) -> Iterator[Way]:
    """Yield every operator at every cost below the steps of `base`, with evenly spaced computed steps.

    Fitted operators take their weights from the trajectories of the calibration samples, T forwards each; without such
    samples they are left out.
    """
    costs = [cost for cost in costs if cost < base.num_steps]
    known = replayer.operators()
    unknown = [name for name in operators if name not in known]
    if unknown:
        raise CalibrationError(f"the replayer has no operator {unknown}; it has {', '.join(sorted(known))}")
    facts = {name: known[name] for name in operators if planning or not known[name].fits}
    parts = {part for fact in facts.values() for part in fact.fits}
    grams = _grams(replayer, base, parts, planning) if planning and parts and costs else {}
    for name, fact in facts.items():
        for cost in costs:
            entry = _even_entry(uniform_steps(base.num_steps, cost), name, fact, grams)
            yield replace(base, entry=entry, plan="even")


def measured_ways(
    replayer: SamplingReplayer,
    base: Way,
    operators: Sequence[str],
    costs: Sequence[int],
    planning: Planning,
) -> Iterator[Way]:
    """Yield every operator at every cost below the steps of `base`, with the plan of a lazy calibration."""
    resampled = replayer.resampled(base.sampler, base.num_steps)
    for name in operators:
        for entry in _calibrated(resampled, base, [name], costs, planning):
            yield replace(base, entry=entry, plan="measured")


def leaping_ways(replayer: SamplingReplayer, base: Way, costs: Sequence[int], planning: Planning) -> Iterator[Way]:
    """Yield the sampler of `base` on as many of its timesteps as each cost allows, chosen by a lazy calibration."""
    leaping = replayer.leaps(base.sampler, base.num_steps)
    for entry in _calibrated(leaping, base, list(leaping.operators()), costs, planning):
        yield chosen_timesteps(replayer, replace(base, entry=entry, plan="measured"), base.sampler)


def planned_ways(plan: CachePlan, own: Provenance, base: Way, costs: Sequence[int]) -> Iterator[Way]:
    """Yield what a plan that was made for `base`, the model's own run, has at each cost.

    Raises
    ------
    PlanMismatchError
        If it was made for another model, sampler or number of steps.
    """
    served = {name: getattr(own, name) for name in _SERVED}
    plan.require_match(**served)
    for cost in costs:
        if cost in plan.entries:
            entry = plan.entries[cost]
            operators = entry.operators or (plan.provenance.operator,) * (cost - 1)
            yield replace(base, entry=replace(entry, operators=operators), plan="measured")


def chosen_timesteps(replayer: SamplingReplayer, way: Way, sampler: Sampler) -> Way:
    """Return the way that runs `sampler` on the timesteps that `way` computes, and on no others.

    With held noise, `way` is a first-order solver on just these timesteps. Whether they suit another solver as well is
    for the comparison to say.
    """
    assert way.entry is not None
    timesteps = replayer.timesteps(way.sampler, way.num_steps)
    picked = tuple(round(timesteps[step]) for step in way.entry.steps)
    name = f"{sampler.name} on timesteps of {way.sampler.name} {way.num_steps}"
    return Way(Sampler(name, sampler.scheduler, sampler.parameters, picked), way.cost, plan=way.plan)


def _calibrated(
    replayer: Replayer, base: Way, operators: Sequence[str], costs: Sequence[int], planning: Planning
) -> Iterator[PlanEntry]:
    budgets = [cost for cost in costs if cost < base.num_steps]
    if not budgets:
        return
    graph = calibrate_lazily(
        replayer,
        planning.samples,
        max_span=span_for(base.num_steps, budgets),
        budgets=budgets,
        journal=planning.journal(base),
        operators=operators,
        checks=0,
        refine=planning.refine,
        progress=planning.progress,
    )
    entries = graph.entries()
    yield from (entries[budget] for budget in budgets)


def _grams(replayer: SamplingReplayer, base: Way, parts: Iterable[str], planning: Planning) -> Grams:
    of_base = replayer.resampled(base.sampler, base.num_steps)
    runner, meter = LocalRunner(of_base, keep=1), Meter(base.num_steps, planning.progress)
    with (
        Journal(planning.journal(base), of_base.provenance()) as records,
        Measurer(runner, records, meter) as measurer,
    ):
        return measurer.grams(planning.samples, sorted(parts))


def _even_entry(steps: tuple[int, ...], operator: str, facts: OperatorFacts, grams: Grams) -> PlanEntry:
    weights: dict[int, tuple[float, ...]] = {}
    for at, (start, end) in enumerate(pairwise(steps)):
        known = steps[max(0, at - facts.looks_back) : at + 1]
        for step in range(start + 1, end) if facts.fits else ():
            weights[step] = tuple(chain.from_iterable(fit_weights(grams[part], known, step) for part in facts.fits))
    return PlanEntry(steps, operators=(operator,) * (len(steps) - 1), weights=weights)
