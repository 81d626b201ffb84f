"""The plans that `benchmarks.far_prompts` compares on one video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.far_prompts.runs import Way
from benchmarks.far_prompts.watch import forecasts
from lemica_planner import PlanEntry, Sample, uniform_steps
from lemica_planner.lazy import calibrate_lazily
from lemica_planner.operator_graph import OperatorGraph
from lemica_planner.replayer import Replayer

__all__ = ["Oracles", "Rivals", "Ways"]

Ways = dict[tuple[str, int], Way]  # by method and budget


class Oracles:
    """The plans that are made for one video alone.

    Parameters
    ----------
    replayer : Replayer
    like : OperatorGraph
        Its operators and spans are theirs, too.
    budgets : sequence of int
    journal : Path
        Finished work of all of them.
    """

    def __init__(self, replayer: Replayer, like: OperatorGraph, budgets: Sequence[int], journal: Path) -> None:
        self._replayer, self._like, self._budgets, self._journal = replayer, like, budgets, journal
        self._known: dict[Sample, OperatorGraph] = {}

    def graph(self, sample: Sample) -> OperatorGraph:
        """Return the graph of one video; what the journal lacks is measured now."""
        if sample not in self._known:
            self._known[sample] = calibrate_lazily(
                self._replayer,
                [sample],
                max_span=self._like.max_span,
                budgets=self._budgets,
                journal=self._journal,
                operators=tuple(self._like.candidates.operators),
                checks=0,
            )
        return self._known[sample]


class Rivals:
    """Every plan at every budget.

    Parameters
    ----------
    graphs : mapping of str to OperatorGraph
        The shared plans; the first is the one that is watched, weighed under other risks, and compared with.
    budgets : sequence of int
    risks : sequence of str
    oracles : Oracles
    """

    def __init__(
        self, graphs: Mapping[str, OperatorGraph], budgets: Sequence[int], risks: Sequence[str], oracles: Oracles
    ) -> None:
        self.graph = next(iter(graphs.values()))
        self._budgets, self._oracles = budgets, oracles
        entries = self.graph.entries()
        self.shared = {budget: Way(entries[budget], forecasts(self.graph, entries[budget])) for budget in budgets}
        others = dict(list(graphs.items())[1:])
        others |= {risk: replace(self.graph, risk=risk, refined={}) for risk in risks}
        self._others = {name: graph.entries() for name, graph in others.items()}

    def common(self) -> Ways:
        """Return the shared plan and its rivals that are not made for a video."""
        ways = {("shared", budget): way for budget, way in self.shared.items()}
        ways |= {(name, at): Way(entries[at]) for name, entries in self._others.items() for at in self._budgets}
        steps = {at: tuple(uniform_steps(self.graph.num_steps, at)) for at in self._budgets}
        ways |= {("uniform", at): Way(_weighted(self.graph, path)) for at, path in steps.items()}
        return ways | {("uniform reuse", at): Way(PlanEntry(path)) for at, path in steps.items()}

    def own(self, sample: Sample) -> Ways:
        """Return the plan for this video alone, and what its steps and its fitted weights do on their own."""
        graph, ways = self._oracles.graph(sample), {}
        for at, entry in graph.entries().items():
            if at in self._budgets:
                ways["oracle", at] = Way(entry)
                ways["own steps", at] = Way(_weighted(self.graph, entry.steps))
                ways["own weights", at] = Way(_weighted(graph, self.shared[at].entry.steps))
        return ways

    def of_other_seed(self, other: Sample) -> Ways:
        """Return the plan for another seed of the same prompt."""
        entries = self._oracles.graph(other).entries()
        return {("other seed", at): Way(entries[at]) for at in self._budgets}


def _weighted(graph: OperatorGraph, steps: Sequence[int]) -> PlanEntry:
    return graph.entry(steps, graph.weights())
