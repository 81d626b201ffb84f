"""Foresee what a lazy calibration will still take, in forwards of one row, from its first forward on.

What is doubtful on the best paths of now is too little early on: what is measured moves the paths to other doubtful
edges. So it counts for no less than what such searches have taken on one model. What is in the journal is not counted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lemica_planner.calibration_cost import naive_forwards
from lemica_planner.measuring import Measurer
from lemica_planner.provenance import Sample
from lemica_planner.replayer import OperatorFacts, Segment

__all__ = ["ExpectedWork", "search_forwards"]

# Fitted on the embedded model, T = 50: residual, 1 to 9 budgets, one sample and two; fitted forecasts, 3 and 9 budgets.
_SHARE, _POWER, _LOOKING_BACK = 0.14, 0.7, 1.5


def search_forwards(num_steps: int, max_span: int, num_budgets: int, operators: Collection[OperatorFacts]) -> float:
    """Return about how many forwards of replays the search takes on one sample.

    Twice the steps have twice the edges on a path, each with twice the steps after it. Further budgets share edges with
    the first. It is never more than measuring every edge for every operator.

    Examples
    --------
    >>> round(search_forwards(50, 10, 3, [OperatorFacts(0)]))
    755
    """
    looks_back = any(facts.looks_back for facts in operators)
    usual: float = _SHARE * num_steps**2 * float(num_budgets) ** _POWER * (_LOOKING_BACK if looks_back else 1)
    return min(usual, len(operators) * (naive_forwards(num_steps, max_span) - num_steps))


@dataclass(frozen=True)
class ExpectedWork:
    """Tells the meter what is left, phase by phase.

    Attributes
    ----------
    measurer : Measurer
    num_steps, max_span : int
    operators : mapping of str to OperatorFacts
    budgets : sequence of int
    checks, refine : int
        As for `lemica_planner.lazy.calibrate_lazily`.
    """

    measurer: Measurer
    num_steps: int
    max_span: int
    operators: Mapping[str, OperatorFacts]
    budgets: Sequence[int]
    checks: int
    refine: int

    def before_search(self, samples: Sequence[Sample], trajectories: Sequence[Sample]) -> None:
        """Foresee everything: nothing is known yet of `samples`, and the `trajectories` must run."""
        self._foresee(self._search(samples), samples, trajectories)

    def in_search(self, samples: Sequence[Sample], doubtful: Sequence[Segment]) -> None:
        """Foresee what is left when `doubtful` is still to be measured on the best paths of now."""
        certain = self.measurer.forwards("error", dict.fromkeys(samples, doubtful))
        self._foresee(max(certain, self._search(samples)), samples, samples)

    def before_checks(self, samples: Sequence[Sample]) -> None:
        """Foresee what is left when the search is over."""
        self._foresee(0, samples, samples)

    def before_refinement(self, samples: Sequence[Sample], budgets: Sequence[int]) -> None:
        """Foresee what is left when only `budgets` are to be refined."""
        paths = self._refinement(samples, budgets)
        self.measurer.foresee(paths, samples if paths else ())

    def _foresee(self, search: float, samples: Sequence[Sample], trajectories: Sequence[Sample]) -> None:
        checks = self.checks * self.num_steps // 2  # a segment ends half way, in the mean
        later = checks + self._refinement(samples, self.budgets)
        self.measurer.foresee(round(search) + later, trajectories)

    def _search(self, samples: Sequence[Sample]) -> float:
        """Return what searches usually take, less what is known by now."""
        usual = search_forwards(self.num_steps, self.max_span, len(self.budgets), self.operators.values())
        known = self.measurer.known_forwards(samples, self.operators, self.max_span)
        return max(0.0, usual * len(samples) - known)

    def _refinement(self, samples: Sequence[Sample], budgets: Sequence[int]) -> int:
        """Return the forwards of the paths that may still be run whole."""
        return sum(
            max(0, self.refine - self.measurer.known_paths(sample, budget)) * budget
            for sample in samples
            for budget in budgets
        )
