"""Rivals that are lists of steps: the planner's own plans, the paper's, MeanCache's, uniform, and fewer steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.rivals.rival import Rival, Start, follow, run_full
from lemica_planner import CachePlan, ErrorGraph, Fill, shortest_path, solve, uniform_steps
from lemica_planner.graph_file import load_graph

PEAK_POWER = 2.0


def planned(sources: Iterable[str], budgets: Sequence[int]) -> Iterator[Rival]:
    """Yield the plans of ``NAME=GRAPH.npz``, with the operators that they were calibrated for."""
    for source in sources:
        name, _, path = source.partition("=")
        plan = CachePlan.from_graph(load_graph(path))
        for budget in budgets:
            entry = plan.resolve(budget)
            yield _listed(name, f"B={budget}", entry.steps, entry.reuse(plan.provenance.operator), best=True)


def from_paper(graph: ErrorGraph, budgets: Sequence[int]) -> Iterator[Rival]:
    """Yield LeMiCa's own plans: minimax paths through the naive graph, the last residual reused (arXiv 2511.00090)."""
    for budget in budgets:
        yield reused("lemica paper", f"B={budget}", solve(graph, budget).steps, graph.num_steps, best=True)


def uniform(num_steps: int, budgets: Sequence[int]) -> Iterator[Rival]:
    """Yield evenly spaced steps, the last residual reused."""
    for budget in budgets:
        yield reused("uniform", f"B={budget}", uniform_steps(num_steps, budget), num_steps)


def mean_cache(graph: ErrorGraph, budgets: Sequence[int]) -> Iterator[Rival]:
    """Yield MeanCache's schedule (arXiv 2601.19961), once with reused residuals and once with its average velocity.

    Our reading: the path that minimises the sum of its edge costs to a power above 1, which suppresses peaks, under
    the budget. The costs are those of the naive graph, because theirs, the deviation of the average velocity, are not
    published for this model; the power is 2. The average velocity over a skipped step is a first-order forecast of
    the guided output from the last two computed ones, which is what a finite difference in place of the
    Jacobian-vector product comes to; their choice of the span of that difference edge by edge is left out.
    """
    powered = ErrorGraph(peak_powers(graph.weights))
    for budget in budgets:
        steps = shortest_path(powered, budget).steps
        yield reused("meancache steps", f"B={budget}", steps, graph.num_steps, best=True)
        yield reused("meancache velocity", f"B={budget}", steps, graph.num_steps, "output-linear", best=True)


def peak_powers(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return edge costs to the power that makes one bad edge dearer than several good ones; inf stays inf."""
    return np.power(weights, PEAK_POWER)


def fewer_steps(budgets: Sequence[int]) -> Iterator[Rival]:
    """Yield the same sampler with as many steps as it may compute, and no cache."""
    for steps in budgets:
        yield Rival("fewer steps", f"T={steps}", f"T={steps}", partial(_run_fewer, steps=steps))


def _run_fewer(begin: Start, steps: int) -> Tensor:
    return run_full(begin.with_steps(steps))


def reused(
    method: str, setting: str, steps: Sequence[int], num_steps: int, operator: str = "residual", *, best: bool = False
) -> Rival:
    """Return a list of steps whose every other step is made by one operator of the engine."""
    reuse = {step: Fill(operator) for step in sorted(set(range(num_steps)) - set(steps))}
    return _listed(method, setting, steps, reuse, best=best)


def _listed(method: str, setting: str, steps: Sequence[int], reuse: Mapping[int, Fill], *, best: bool) -> Rival:
    run = partial(follow, computed=frozenset(steps), reuse=reuse)
    return Rival(method, setting, f"{sorted(steps)} {sorted(reuse.items())}", run, best)


def naive_graph(path: Path) -> ErrorGraph:
    """Return the graph of the paper's reuse; one with several operators is none."""
    graph = load_graph(path)
    return graph if isinstance(graph, ErrorGraph) else graph.to_error_graph()
