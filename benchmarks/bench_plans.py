"""Compare plans on prompts that none of them was calibrated on.

``python -m benchmarks.bench_plans MODEL_DIR [NAME=GRAPH ...] --prompts FILE``: every prompt is generated in full and,
for each named budget, with the steps of the minimax plan, of the shortest path (the smallest sum of edge weights), of
uniform skipping, and of the plans of other graphs; means over the prompts against the full video, with 95 % bootstrap
intervals. In process, with the serving engine's own code, because a server serves plans only. The last line is the same
as JSON; ``--output FILE`` keeps it, with the ``curves`` that ``lemica-planner report --curves`` draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.bench_outcomes import bootstrap, curve_row, write_result
from benchmarks.models import OpenModel, open_folder
from benchmarks.paper.scores import MEASURES
from benchmarks.videos import FIRST_SEED, Outcome, compare_videos, full_entry, make_videos
from demo.lpips_weights import ensure_weights
from demo.measure import read_prompts
from lemica_planner import CachePlan, ErrorGraph, PlanEntry, Sample, shortest_path, solve, uniform_steps
from lemica_planner.config_writer import read_plan
from lemica_planner.graph_file import load_graph

_LOG_WIDTH = 130  # in a file nobody can widen the window
_Known = Mapping["Way", Mapping[str, NDArray[np.float64]]]  # values over the prompts, by measure


class Way(NamedTuple):
    """A budget's name and who chose its steps."""

    budget: str
    method: str


def plans(graph: ErrorGraph, names: Mapping[str, int]) -> dict[Way, PlanEntry]:
    """Return the steps of every rival at every named budget."""
    return {
        Way(name, method): PlanEntry(steps)
        for name, budget in names.items()
        for method, steps in (
            ("minimax", solve(graph, budget).steps),
            ("shortest", shortest_path(graph, budget).steps),
            ("uniform", tuple(uniform_steps(graph.num_steps, budget))),
        )
    }


def other_plans(sources: Iterable[str], names: Mapping[str, int]) -> dict[Way, PlanEntry]:
    """Return the entries of ``NAME=GRAPH`` at every named budget."""
    graphs = {name: load_graph(path) for name, _, path in (source.partition("=") for source in sources)}
    plans = {name: CachePlan.from_graph(graph) for name, graph in graphs.items()}
    return {Way(budget, name): plan.resolve(number) for name, plan in plans.items() for budget, number in names.items()}


def compare_on(opened: OpenModel, ways: Mapping[Way, PlanEntry], sample: Sample) -> dict[Way, Outcome]:
    """Generate one sample in full and in every way, all of them as rows of the same ticks."""
    full, *videos = make_videos(opened, [full_entry(opened.num_steps), *ways.values()], sample)
    return {way: compare_videos(video, full) for way, video in zip(ways, videos, strict=True)}


def _values(outcomes: Sequence[Mapping[Way, Outcome]]) -> _Known:
    scores = {way: [outcome[way].scores() for outcome in outcomes] for way in outcomes[0]}
    return {
        way: {measure.key: np.array([prompt[measure.key] for prompt in some]) for measure in MEASURES}
        for way, some in scores.items()
    }


def _rows(known: _Known) -> Iterator[dict[str, Any]]:
    for way, measures in known.items():
        means = {key: float(values.mean()) for key, values in measures.items()}
        intervals = {f"{key}_interval": bootstrap(values) for key, values in measures.items()}
        yield {"budget": way.budget, "method": way.method, **means, **intervals}


def _curves(known: _Known, names: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Return for each measure its points by method and computed steps."""
    return {
        measure.key: {
            "title": measure.title,
            "unit": measure.unit,
            "rows": [curve_row(way.method, names[way.budget], some[measure.key]) for way, some in known.items()],
        }
        for measure in MEASURES
    }


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table("budget", "method", *(measure.title for measure in MEASURES), title="means and 95 % intervals")
    for row in rows:
        table.add_row(row["budget"], row["method"], *(_cell(row, measure.key) for measure in MEASURES))
    console = Console()
    (console if console.is_terminal else Console(width=_LOG_WIDTH)).print(table)


def _cell(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.4g} ({low:.3g}-{high:.3g})"


def main(
    model_dir: Annotated[Path, typer.Argument(help="The model's folder, with config.pbtxt.")],
    others: Annotated[list[str] | None, typer.Argument(help="NAME=GRAPH.npz of more plans.")] = None,
    *,
    prompts: Annotated[Path, typer.Option(help="One held-out prompt a line.")],
    count: Annotated[int | None, typer.Option(help="Only the first prompts.")] = None,
    graph: Annotated[Path | None, typer.Option(help="By default MODEL_DIR/calibration/naive.npz.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the JSON here as well.")] = None,
) -> None:
    """Print the comparison as a table, then as one line of JSON."""
    ensure_weights()
    opened = open_folder(model_dir)
    plan = read_plan(model_dir / "config.pbtxt")
    known = load_graph(graph or model_dir / "calibration" / "naive.npz")
    ways = plans(known if isinstance(known, ErrorGraph) else known.to_error_graph(), plan.names)
    ways |= other_plans(others or (), plan.names)
    texts = read_prompts(prompts)[:count]
    outcomes = [
        compare_on(opened, ways, Sample(prompt, FIRST_SEED + number)) for number, prompt in enumerate(tqdm(texts))
    ]
    values = _values(outcomes)
    rows = list(_rows(values))
    _show(rows)
    facts = {"plan_id": plan.plan_id, "prompts": len(texts), "first_seed": FIRST_SEED}
    write_result({**facts, "rows": rows, "curves": _curves(values, plan.names)}, output)


if __name__ == "__main__":
    typer.run(main)
