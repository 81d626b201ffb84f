"""How far plans are from the best path there is, found by running every path of a short trajectory whole.

``python -m benchmarks.bench_oracle MODEL_DIR --prompts FILE --steps 10 --budgets 4,5,6``: calibrates each operator at
so few steps, runs all paths of each budget on the same samples, and prints what each method's path loses against the
best of them: the minimax path, the shortest, the one with the smallest sum of squares, uniform skipping, and the
refined path. Interrupted, the same command goes on. The last line is the same as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.bench_outcomes import ROWS_AT_ONCE, parse_range
from demo.measure import read_prompts
from lemica_backend.config import load_config
from lemica_backend.opening import open_model
from lemica_backend.replay import EngineReplayer
from lemica_planner import Sample, uniform_steps
from lemica_planner.history_solver import shortest_with_history, solve_with_history
from lemica_planner.journal import Journal
from lemica_planner.lazy import calibrate_lazily
from lemica_planner.measuring import LocalRunner, Measurer, Meter
from lemica_planner.operator_graph import OperatorGraph

Steps = tuple[int, ...]


def all_paths(num_steps: int, budget: int) -> list[Steps]:
    """Return every path of `budget` computed steps, the first and the last among them."""
    return [(0, *inner, num_steps - 1) for inner in combinations(range(1, num_steps - 1), budget - 2)]


def methods(graph: OperatorGraph, budget: int) -> dict[str, Steps]:
    """Return what each method chooses from the graph."""
    table = graph.candidates.weights(graph.weights())
    chosen = {
        "minimax": solve_with_history(table)[budget],
        "shortest": shortest_with_history(table)[budget],
        "sum of squares": shortest_with_history(table**2)[budget],
        "uniform": tuple(uniform_steps(graph.num_steps, budget)),
    }
    return chosen | ({"refined": graph.refined[budget].steps} if budget in graph.refined else {})


def run_paths(measurer: Measurer, graph: OperatorGraph, paths: Sequence[Steps]) -> dict[Steps, float]:
    """Return what each whole path changes, a mean over the graph's samples; what the journal holds is not run again."""
    weights = graph.weights()
    entries = [graph.entry(steps, weights) for steps in paths]
    parts = [entries[at : at + ROWS_AT_ONCE] for at in range(0, len(entries), ROWS_AT_ONCE)]
    found = [measurer.outcomes(graph.samples, part).mean(axis=0) for part in tqdm(parts, unit="batch", leave=False)]
    return dict(zip(paths, np.concatenate(found).tolist(), strict=True))


def compare(graph: OperatorGraph, measurer: Measurer, budgets: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield a row for each budget and method: its outcome over the best path's, and its place among all paths."""
    for budget in budgets:
        outcomes = run_paths(measurer, graph, all_paths(graph.num_steps, budget))
        ordered = sorted(outcomes.values())
        for name, steps in methods(graph, budget).items():
            yield {
                "operator": graph.provenance.operator,
                "budget": budget,
                "method": name,
                "over_best": outcomes[steps] / ordered[0],
                "place": 1 + ordered.index(outcomes[steps]),
                "paths": len(ordered),
            }


def _show(rows: Sequence[dict[str, Any]]) -> None:
    table = Table("operator", "budget", "method", "error / best path's", "place")
    for row in rows:
        place = f"{row['place']} of {row['paths']}"
        table.add_row(row["operator"], str(row["budget"]), row["method"], f"{row['over_best']:.3f}", place)
    Console().print(table)


def open_short(model_dir: Path, steps: int, metric: str) -> EngineReplayer:
    """Open the model for trajectories of so few steps."""
    config = load_config(model_dir / "1" / "model.json")
    config = config.model_copy(update={"defaults": config.defaults.model_copy(update={"num_inference_steps": steps})})
    return EngineReplayer(open_model(model_dir / "1", config), config, model_dir.name, metric)


def main(
    model_dir: Annotated[Path, typer.Argument(help="The model's folder, with config.pbtxt.")],
    *,
    prompts: Annotated[Path, typer.Option(help="One prompt a line; calibrated and compared on the same.")],
    count: Annotated[int, typer.Option(help="Only the first prompts.")] = 2,
    steps: Annotated[int, typer.Option(help="Steps of a trajectory; all paths of them are run.")] = 10,
    budgets: Annotated[str, typer.Option(help="Such as 4-6, or 4,6.")] = "4-6",
    operators: Annotated[str, typer.Option(help="Compared each for itself.")] = "residual,residual-split",
    metric: Annotated[str, typer.Option(help="What errors measure.")] = "latents_l1",
    refine: Annotated[int, typer.Option(help="Whole paths that refinement may run for each budget.")] = 12,
    work: Annotated[Path, typer.Option(help="Where finished work is kept; the same command goes on there.")] = Path(
        "runs/oracle"
    ),
) -> None:
    """Print the comparison as a table, then as one line of JSON."""
    replayer = open_short(model_dir, steps, metric)
    samples = [Sample(prompt, seed) for seed, prompt in enumerate(read_prompts(prompts)[:count])]
    wanted, rows = parse_range(budgets), []
    work.mkdir(parents=True, exist_ok=True)
    runner = LocalRunner(replayer, keep=len(samples))
    for operator in operators.split(","):
        journal = work / f"{metric}-{steps}-{operator}.jsonl"
        options = {"max_span": steps - 1, "budgets": wanted, "journal": journal}
        graph = calibrate_lazily(replayer, samples, operators=[operator], confirm=0, refine=refine, **options)  # type: ignore[arg-type]
        provenance = replayer.provenance()
        with Journal(journal, provenance) as records, Measurer(runner, records, Meter(steps)) as measurer:
            rows += list(compare(graph, measurer, wanted))
    _show(rows)
    print(
        json.dumps(
            {"steps": steps, "samples": [sample.to_list() for sample in samples], "metric": metric, "rows": rows}
        )
    )


if __name__ == "__main__":
    typer.run(main)
