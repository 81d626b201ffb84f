"""Table 3 of the paper: the minimax path against the shortest path of the same graph, and uniform skipping.

``python -m benchmarks.paper table3 MODEL_DIR ... [--graph NAME=GRAPH.npz]``. The paper's graph is the naive one
(residual, latents L1, every edge measured) in ``MODEL_DIR/calibration/naive.npz``, or those of ``--naive``, whose
samples count together; ``--draws`` deals them out to as many calibrations, each with paths of its own. Graphs that are
given, of either kind, belong to the models whose weights they were measured with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.models import OpenModel, open_folders
from benchmarks.paper import options
from benchmarks.paper.evaluations import Evaluations
from benchmarks.paper.trials import Case, Report, Trial
from lemica_planner import (
    CalibrationError,
    ErrorGraph,
    InfeasibleBudgetError,
    PlanEntry,
    shortest_path,
    solve,
    uniform_steps,
)
from lemica_planner.graph_file import load_graph
from lemica_planner.history_solver import shortest_with_history, solve_with_history
from lemica_planner.operator_graph import OperatorGraph

__all__ = ["drawn_from", "joined", "rivals", "table3"]

Graph = ErrorGraph | OperatorGraph
MINIMAX, SHORTEST, UNIFORM = "minimax", "shortest", "uniform"


def table3(
    model_dirs: options.ModelDirs,
    *,
    naive: Annotated[
        list[Path] | None, typer.Option(help="A naive graph, in place of the model's own; several count together.")
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Calibrations to make of the naive graph's samples.")] = 1,
    graph: Annotated[list[str] | None, typer.Option(help="NAME=GRAPH.npz of another graph; may be repeated.")] = None,
    budgets: Annotated[str, typer.Option(help="Numbers of computed steps.")] = "8,10,12,14,17,20,25",
    eager: options.Eager = False,
    prompts: options.Prompts = options.HELD_OUT_FILE,
    count: options.Count = None,
    work: options.Work = options.WORK_FOLDER,
    output: options.Output = None,
) -> None:
    """Compare the minimax path with the shortest path, by graph and budget."""
    with options.refusals():
        models, samples = open_folders(model_dirs, eager=eager), options.held_out(prompts, count)
        report = Report("table3", options.facts(models, samples, draws=draws))
        for opened, graphs in graphs_of(models, graph or (), naive=naive or (), draws=draws).items():
            trial = make_trial(opened, graphs, options.numbers(budgets))
            report.add(trial, samples, Evaluations(work / "evaluations.jsonl"))
        report.finish(output)


def graphs_of(
    models: Sequence[OpenModel], sources: Iterable[str], *, naive: Sequence[Path] = (), draws: int = 1
) -> dict[OpenModel, dict[str, list[Graph]]]:
    """Return each model's graphs by name: its naive one, named ``""``, if it is there, and those given as NAME=GRAPH.

    The naive one is a graph for each draw, the others are one graph each. Of `naive`, each model takes those that were
    measured with its weights, and only if there are none its own.

    Raises
    ------
    CalibrationError
        If a given graph is of none of the models, or a model has no graph.
    """
    found: dict[OpenModel, dict[str, list[Graph]]] = {}
    for opened in models:
        mine = _naive_graphs(opened, naive)
        found[opened] = {"": drawn_from(joined(mine), draws)} if mine else {}
    _require_owners(naive, models)
    for source in sources:
        name, _, file = source.partition("=")
        given = load_graph(file)
        owners = [opened for opened in models if _is_of(given, opened)]
        if not name or not owners:
            raise CalibrationError(f"{source}: give NAME=GRAPH.npz, measured with the weights of one of the models")
        for opened in owners:
            found[opened][name] = [given]
    bare = [opened.folder for opened, graphs in found.items() if not graphs]
    if bare:
        raise CalibrationError(
            f"{bare[0]} has no calibration/naive.npz; make it with `lemica-planner calibrate {bare[0]} --method naive "
            f"--max-span 10 --prompts FILE -o {bare[0]}/calibration/naive.npz`, or give --graph"
        )
    return found


def joined(graphs: Sequence[Graph]) -> Graph:
    """Return one naive graph with the samples of all; a single one as it is.

    Raises
    ------
    CalibrationError
        If one is no naive graph with its samples' errors, if they differ in steps or longest edge, or share a sample.
    """
    if len(graphs) == 1:
        return graphs[0]
    naive = [graph for graph in graphs if isinstance(graph, ErrorGraph) and graph.sample_errors is not None]
    errors = [np.asarray(graph.sample_errors) for graph in naive]
    samples = [sample for graph in naive for sample in graph.samples]
    if len(naive) < len(graphs) or len({(graph.num_steps, graph.max_span) for graph in naive}) > 1:
        raise CalibrationError("naive graphs count together if they hold their samples' errors and the same edges")
    if len(set(samples)) < sum(map(len, errors)):
        raise CalibrationError("the naive graphs share samples; give each sample once")
    every = np.concatenate(errors)
    return ErrorGraph(every.mean(axis=0, dtype=np.float64), every, naive[0].provenance, samples)


def _naive_graphs(opened: OpenModel, given: Sequence[Path]) -> list[Graph]:
    mine = [graph for graph in map(load_graph, given) if _is_of(graph, opened)]
    own = opened.folder / "calibration" / "naive.npz"
    return mine or ([load_graph(own)] if own.exists() else [])


def _require_owners(naive: Sequence[Path], models: Sequence[OpenModel]) -> None:
    for path in naive:
        if not any(_is_of(load_graph(path), opened) for opened in models):
            raise CalibrationError(f"{path} was measured with the weights of none of the models")


def drawn_from(graph: Graph, draws: int) -> list[Graph]:
    """Deal the samples of a naive graph out to so many graphs, in turn.

    Raises
    ------
    CalibrationError
        If it has fewer samples, or is no naive graph.
    """
    if draws == 1:
        return [graph]
    errors = None if isinstance(graph, OperatorGraph) else graph.sample_errors
    if isinstance(graph, OperatorGraph) or errors is None or len(errors) < draws:
        count = 0 if errors is None else len(errors)
        raise CalibrationError(f"{draws} draws need a naive graph of as many samples; got {count}: calibrate more")
    dealt = [errors[number::draws].astype(np.float64).mean(axis=0) for number in range(draws)]
    return [ErrorGraph(weights, provenance=graph.provenance) for weights in dealt]


def make_trial(opened: OpenModel, graphs: Mapping[str, Sequence[Graph]], budgets: Sequence[int]) -> Trial:
    """Return the trial of every graph's two paths, and of uniform skipping, at every budget."""
    cases, pairs = [], []
    for name, drawn in graphs.items():
        for graph in drawn:
            _require_fit(graph, opened)
        named = {method: f"{name} {method}".strip() for method in (MINIMAX, SHORTEST)}
        pairs.append((named[MINIMAX], named[SHORTEST]))
        found = [rivals(graph, budgets) for graph in drawn]
        cases += [
            Case(called, budget, tuple(paths[method][budget] for paths in found))
            for method, called in named.items()
            for budget in budgets
        ]
    cases += [Case(UNIFORM, at, (PlanEntry(uniform_steps(opened.num_steps, at)),)) for at in budgets]
    pairs += [(first, UNIFORM) for first, _ in pairs]
    return Trial(opened, opened.name, sorted(cases, key=lambda case: case.budget), pairs)


def rivals(graph: Graph, budgets: Sequence[int]) -> dict[str, dict[int, PlanEntry]]:
    """Return the minimax and the shortest paths of a graph by budget, with their operators.

    Raises
    ------
    InfeasibleBudgetError
        If a budget has no path.
    """
    if isinstance(graph, ErrorGraph):
        operator = graph.provenance.operator if graph.provenance else "residual"
        return {
            method: {at: _reusing(operator, find(graph, at).steps) for at in budgets}
            for method, find in ((MINIMAX, solve), (SHORTEST, shortest_path))
        }
    weights = graph.weights()
    table = graph.candidates.weights(weights)
    paths = {MINIMAX: solve_with_history(table), SHORTEST: shortest_with_history(table)}
    for budget in budgets:
        if budget not in paths[MINIMAX]:
            raise InfeasibleBudgetError(budget, tuple(paths[MINIMAX]))
    return {method: {at: graph.entry(found[at], weights) for at in budgets} for method, found in paths.items()}


def _reusing(operator: str, steps: tuple[int, ...]) -> PlanEntry:
    return PlanEntry(steps, operators=(operator,) * (len(steps) - 1))


def _is_of(graph: Graph, opened: OpenModel) -> bool:
    return graph.provenance is not None and graph.provenance.weights_hash == opened.model.info.weights_hash


def _require_fit(graph: Graph, opened: OpenModel) -> None:
    """Refuse a graph of another model, sampler, number of steps or guidance; raises `PlanMismatchError`."""
    if graph.provenance:
        known = opened.replayer().provenance()
        names = ("weights_hash", "scheduler", "scheduler_config", "num_inference_steps", "guidance_scale")
        graph.provenance.require_match(**{name: getattr(known, name) for name in names})
