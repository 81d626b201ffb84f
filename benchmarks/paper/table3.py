"""Table 3 of the paper: the minimax path against the shortest path of the same graph, and uniform skipping.

``python -m benchmarks.paper table3 MODEL_DIR ... [--graph NAME=GRAPH.npz]``. The paper's graph is the naive one
(residual, latents L1, every edge measured) in ``MODEL_DIR/calibration/naive.npz``. More graphs, of either kind, belong
to the models whose weights they were measured with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import typer

from benchmarks.models import OpenModel, open_folder
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

__all__ = ["rivals", "table3"]

Graph = ErrorGraph | OperatorGraph
MINIMAX, SHORTEST, UNIFORM = "minimax", "shortest", "uniform"


def table3(
    model_dirs: options.ModelDirs,
    *,
    graph: Annotated[list[str] | None, typer.Option(help="NAME=GRAPH.npz of another graph; may be repeated.")] = None,
    budgets: Annotated[str, typer.Option(help="Numbers of computed steps.")] = "8,10,12,14,17,20,25",
    prompts: options.Prompts = options.HELD_OUT_FILE,
    count: options.Count = None,
    work: options.Work = options.WORK_FOLDER,
    output: options.Output = None,
) -> None:
    """Compare the minimax path with the shortest path, by graph and budget."""
    with options.refusals():
        models, samples = [open_folder(folder) for folder in model_dirs], options.held_out(prompts, count)
        report = Report("table3", options.facts(models, samples))
        for opened, graphs in graphs_of(models, graph or ()).items():
            trial = make_trial(opened, graphs, options.numbers(budgets))
            report.add(trial, samples, Evaluations(work / "evaluations.jsonl"))
        report.finish(output)


def graphs_of(models: Sequence[OpenModel], sources: Iterable[str]) -> dict[OpenModel, dict[str, Graph]]:
    """Return each model's graphs by name: its naive one, named ``""``, if it is there, and those given as NAME=GRAPH.

    Raises
    ------
    CalibrationError
        If a given graph is of none of the models, or a model has no graph.
    """
    found: dict[OpenModel, dict[str, Graph]] = {}
    for opened in models:
        naive = opened.folder / "calibration" / "naive.npz"
        found[opened] = {"": load_graph(naive)} if naive.exists() else {}
    for source in sources:
        name, _, path = source.partition("=")
        given = load_graph(path)
        owners = [opened for opened in models if _is_of(given, opened)]
        if not name or not owners:
            raise CalibrationError(f"{source}: give NAME=GRAPH.npz, measured with the weights of one of the models")
        for opened in owners:
            found[opened][name] = given
    bare = [opened.folder for opened, graphs in found.items() if not graphs]
    if bare:
        raise CalibrationError(
            f"{bare[0]} has no calibration/naive.npz; make it with `lemica-planner calibrate {bare[0]} --method naive "
            f"--max-span 10 --prompts FILE -o {bare[0]}/calibration/naive.npz`, or give --graph"
        )
    return found


def make_trial(opened: OpenModel, graphs: Mapping[str, Graph], budgets: Sequence[int]) -> Trial:
    """Return the trial of every graph's two paths, and of uniform skipping, at every budget."""
    cases, pairs = [], []
    for name, graph in graphs.items():
        _require_fit(graph, opened)
        named = {method: f"{name} {method}".strip() for method in (MINIMAX, SHORTEST)}
        pairs.append((named[MINIMAX], named[SHORTEST]))
        for method, entries in rivals(graph, budgets).items():
            cases += [Case(named[method], budget, (entry,)) for budget, entry in entries.items()]
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
