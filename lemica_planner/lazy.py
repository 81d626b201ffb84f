"""Calibrate at a fraction of the forwards: measure only what decides which steps are best.

1. The full trajectory of every sample: T forwards.
2. The drift of every segment, which needs no forward, and the true error of a few, spread over the steps: together
   they estimate every error, and how far off that may be (`lemica_planner.gains`).
3. Solve, once as if every doubtful edge were better than estimated and once as estimated; measure the most doubtful
   of the large edges on these paths; solve again, until none of them could change the worst edge by much.
4. A few segments that no path took are measured as well: they tell how far off the estimates are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lemica_planner.calibrate import calibrated
from lemica_planner.candidates import NONE, Candidates, require_plannable
from lemica_planner.confidence import largest_regret
from lemica_planner.errors import CalibrationError, InfeasibleBudgetError
from lemica_planner.expected_work import ExpectedWork
from lemica_planner.gains import Estimates, GainModel
from lemica_planner.history_solver import solve_with_history
from lemica_planner.journal import Journal
from lemica_planner.measuring import LocalRunner, Measurer, Meter, ProgressCallback, Runner
from lemica_planner.operator_graph import OperatorGraph
from lemica_planner.provenance import Provenance, Sample
from lemica_planner.refine import Refiner
from lemica_planner.replayer import OperatorFacts, Replayer
from lemica_planner.risk import require_risk, risk_measure
from lemica_planner.switches import feasible_range

__all__ = ["calibrate_lazily"]

_ANCHORS = (0.16, 0.32, 0.52, 0.76)  # ends, in shares of the steps, whose gain is measured first
_ANCHOR_SPAN = 4
_HOPE = 0.7  # standard deviations by which a doubtful edge may be better than its estimate
_FEAR = 1.0  # and worse


def calibrate_lazily(
    replayer: Replayer,
    samples: Sequence[Sample],
    *,
    max_span: int,
    budgets: Sequence[int],
    journal: Path,
    operators: Sequence[str] = ("residual",),
    risk: str = "mean",
    confirm: float = 0.9,
    checks: int = 8,
    refine: int = 0,
    regret: float = 0,
    progress: ProgressCallback | None = None,
    runner: Runner | None = None,
) -> OperatorGraph:
    """Return a graph in which every edge on the best paths of `budgets` is measured, and the others are estimated.

    Parameters
    ----------
    replayer, samples, max_span, journal, progress, runner
        As for `lemica_planner.calibrate.calibrate`; `progress` gets an estimate of the total, corrected on the way. By
        default this process holds the trajectories of all samples at once.
    budgets : sequence of int
        The numbers of computed steps whose paths must be measured.
    operators : sequence of str
        Those to choose from, edge by edge.
    risk : str
        See `lemica_planner.risk.risk_measure`.
    confirm : float
        An edge stays estimated if even a standard deviation above its estimate it is below this share of its path's
        worst edge; 0 measures every edge on the best paths.
    checks : int
        Segments off the paths to measure, of the first sample.
    refine : int
        Whole paths to run for each of `budgets`, on every sample, in search of a better outcome; see
        `lemica_planner.refine`; ``provenance.calibration["refine_forwards"]`` counts them.
    regret : float
        Stop with the first 2, 4, 8, ... samples if other draws of them would regret the paths of `budgets` by no more
        than this share of their worst edge (`lemica_planner.confidence`); 0 uses all samples. The trajectories of all
        of them are run, and fitted weights are fitted to all of them.

    Raises
    ------
    CalibrationError
        If there is nothing to measure, an operator or risk is unknown, or the replayer returns impossible errors.
    """
    samples = [Sample(*sample) for sample in samples]
    if not samples or max_span < 2 or not budgets:
        raise CalibrationError(
            f"give samples, budgets and max_span >= 2; got {len(samples)}, {len(budgets)} and {max_span}"
        )
    chosen = _choose(replayer.operators(), operators)
    require_risk(risk)
    provenance = replayer.provenance()
    switches = replayer.switches()
    _require_feasible(provenance.num_inference_steps, max_span, budgets, switches)
    meter = Meter(provenance.num_inference_steps, progress)
    runner = runner or LocalRunner(replayer, keep=len(samples))
    with Journal(journal, provenance) as records, Measurer(runner, records, meter) as measurer:
        work = ExpectedWork(
            measurer, provenance.num_inference_steps, max_span, chosen, budgets, checks=checks, refine=refine
        )
        parts = sorted({part for facts in chosen.values() for part in facts.fits})
        rounds = _rounds(len(samples), regret)
        work.before_search(samples[: rounds[0]], samples if parts else samples[: rounds[0]])
        grams = measurer.grams(samples, parts)
        candidates = Candidates(provenance.num_inference_steps, max_span, chosen, grams, switches)
        stated = replace(provenance, operator="+".join(operators))
        for used in rounds:
            search = _Search(measurer, samples[:used], candidates, risk, trajectories=len(samples) if parts else used)
            search.run(budgets, confirm, work)
            graph = search.graph(stated)
            if used == len(samples) or _is_sure(graph, budgets, regret):
                break
        work.before_checks(samples[:used])
        graph = search.checked(graph, checks, budgets)
        graph = Refiner(graph, measurer, work).refined(budgets) if refine else graph
        measurer.settle()
        return graph


def _rounds(count: int, regret: float) -> list[int]:
    """Return how many samples to use, in turn."""
    few = [2**power for power in range(1, count.bit_length()) if 2**power < count] if regret else []
    return [*few, count]


def _is_sure(graph: OperatorGraph, budgets: Sequence[int], regret: float) -> bool:
    return largest_regret(graph, budgets) <= regret


def _choose(known: Mapping[str, OperatorFacts], names: Iterable[str]) -> dict[str, OperatorFacts]:
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise CalibrationError(f"the replayer has no operator {unknown}; it has {', '.join(sorted(known))}")
    chosen = {name: known[name] for name in names}
    require_plannable(chosen)
    return chosen


def _require_feasible(num_steps: int, max_span: int, budgets: Sequence[int], switches: Collection[int]) -> None:
    if num_steps < 3:
        raise CalibrationError(f"with {num_steps} steps there is nothing to skip; use --method naive, or more steps")
    feasible = feasible_range(num_steps, max_span, switches)
    for budget in budgets:
        if budget not in feasible:
            raise InfeasibleBudgetError(budget, feasible)


class _Search:
    """What is known of the candidates so far, sample by sample."""

    def __init__(
        self, measurer: Measurer, samples: Sequence[Sample], candidates: Candidates, risk: str, *, trajectories: int
    ) -> None:
        self._measurer, self._samples, self._candidates, self._risk = measurer, samples, candidates, risk
        self._trajectories = trajectories
        segments = candidates.segments
        measurer.measure("drift", dict.fromkeys(samples, segments))
        drifts = np.array([[measurer.value(each, "drift", one) for one in segments] for each in samples])
        self._gains = GainModel(segments, candidates.num_steps, drifts)
        self._ends = np.array([segment.end for segment in segments])
        self.errors = np.full(drifts.shape, np.nan)

    def estimates(self) -> Estimates:
        """Return every error: measured or estimated."""
        return self._gains.estimate(self.errors)

    def forwards(self) -> int:
        """Return what trajectories and segments cost in one uninterrupted run, in forwards of one row."""
        steps = self._candidates.num_steps
        return self._trajectories * steps + int((np.isfinite(self.errors) * (steps - self._ends)).sum())

    def run(self, budgets: Sequence[int], confirm: float, work: ExpectedWork) -> None:
        """Measure until no doubtful edge could change the best paths by much."""
        work.in_search(self._samples, ())
        self.measure_anchors()
        while paths := self.doubtful(budgets, confirm):
            left = dict.fromkeys(chosen for path in paths for chosen in path)
            work.in_search(self._samples, [self._candidates.segments[at] for at in left])
            self.measure(list(dict.fromkeys(path[0] for path in paths)))

    def graph(self, stated: Provenance) -> OperatorGraph:
        """Return what is known so far."""
        provenance = calibrated(stated, self._samples, self._candidates.max_span)
        known = {**provenance.calibration, "risk": self._risk, "forwards": self.forwards()}
        provenance = replace(provenance, calibration=known)
        errors, measured = self.estimates().errors, np.isfinite(self.errors)
        return OperatorGraph(self._candidates, errors, measured, self._risk, provenance, tuple(self._samples))

    def checked(self, graph: OperatorGraph, count: int, budgets: Sequence[int]) -> OperatorGraph:
        """Return the graph with what a check of its estimates found."""
        off = self.check(count, budgets)
        graph = self.graph(graph.provenance)
        provenance = replace(graph.provenance, calibration={**graph.provenance.calibration, "check": off})
        return replace(graph, provenance=provenance)

    def measure_anchors(self) -> None:
        """Measure one segment at each of a few ends."""
        steps = self._candidates.num_steps
        span = min(_ANCHOR_SPAN, self._candidates.max_span, steps - 1)
        ends = {max(span, round(share * steps)) for share in _ANCHORS}
        places = [int(self._candidates.slots[0, :, end - span, end].max()) for end in sorted(ends)]
        self.measure([place for place in places if place != NONE] or [0])

    def doubtful(self, budgets: Sequence[int], confirm: float) -> list[list[int]]:
        """Return for each best path that has any its edges that need to be measured, the largest first."""
        known = self.estimates()
        weights = risk_measure(self._risk, known.errors)
        highest = weights * np.exp(_FEAR * known.deviations)
        found = []
        for lowest in (weights * np.exp(-_HOPE * known.deviations), weights):
            paths = solve_with_history(self._candidates.weights(lowest))
            for budget in budgets:
                segments = np.array(self._candidates.on_path(paths[budget], lowest), np.intp)
                doubtful = segments[known.deviations[segments] > 0]
                large = doubtful[highest[doubtful] >= confirm * lowest[segments].max(initial=0)]
                found.append(large[np.argsort(-highest[large], kind="stable")].tolist())
        return [path for path in found if path]

    def measure(self, chosen: Sequence[int], samples: int | None = None) -> None:
        """Measure the chosen segments on every sample, or on the first few."""
        segments = [self._candidates.segments[at] for at in chosen]
        measured = self._samples[:samples]
        self._measurer.measure("error", dict.fromkeys(measured, segments))
        for row, sample in enumerate(measured):
            self.errors[row, chosen] = [self._measurer.value(sample, "error", segment) for segment in segments]

    def check(self, count: int, budgets: Sequence[int]) -> dict[str, float]:
        """Measure segments that no path took, and return how far their estimates were off."""
        estimates = self.estimates().errors[0]
        weights = risk_measure(self._risk, self.estimates().errors)
        paths = solve_with_history(self._candidates.weights(weights))
        worst = max(weights[self._candidates.on_path(paths[budget], weights)].max(initial=0) for budget in budgets)
        near = np.flatnonzero(np.isnan(self.errors[0]) & (estimates <= 2 * worst))
        chosen = np.random.default_rng(0).permutation(near)[:count].tolist()
        if not chosen:
            return {"segments": 0}
        self.measure(chosen, samples=1)
        ratios = estimates[chosen] / np.maximum(self.errors[0, chosen], 1e-12)
        low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9)).round(4).tolist()
        return {"segments": len(chosen), "estimate_over_error_p10": low, "median": middle, "p90": high}
