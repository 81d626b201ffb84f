"""Compare plans on prompts that none of them was calibrated on.

``python -m benchmarks.bench_plans MODEL_DIR [NAME=GRAPH ...] --prompts FILE``: every prompt is generated in full and,
for each named budget, with the steps of the minimax plan, of the shortest path (the smallest sum of edge weights), of
uniform skipping, and of the plans of other graphs; means over the prompts against the full video. In process, with the
serving engine's own code, because a server serves plans only. The last line is the same as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.models import OpenModel, open_folder
from benchmarks.videos import FIRST_SEED, Outcome, compare_videos, full_entry, make_videos
from demo.lpips_weights import ensure_weights
from demo.measure import read_prompts
from lemica_planner import CachePlan, ErrorGraph, PlanEntry, Sample, shortest_path, solve, uniform_steps
from lemica_planner.config_writer import read_plan
from lemica_planner.graph_file import load_graph


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


def _rows(outcomes: list[dict[Way, Outcome]]) -> Iterator[dict[str, str | float]]:
    for way in outcomes[0]:
        mine = [outcome[way] for outcome in outcomes]
        yield {
            "budget": way.budget,
            "method": way.method,
            "lpips": fmean(outcome.quality.lpips for outcome in mine),
            "ssim": fmean(outcome.quality.ssim for outcome in mine),
            "psnr_db": fmean(outcome.quality.psnr for outcome in mine),
            "latents_l1": fmean(outcome.latents_l1 for outcome in mine),
        }


def _show(rows: list[dict[str, str | float]]) -> None:
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.4g}" for value in row.values()))
    Console().print(table)


def main(
    model_dir: Annotated[Path, typer.Argument(help="The model's folder, with config.pbtxt.")],
    others: Annotated[list[str] | None, typer.Argument(help="NAME=GRAPH.npz of more plans.")] = None,
    *,
    prompts: Annotated[Path, typer.Option(help="One held-out prompt a line.")],
    count: Annotated[int | None, typer.Option(help="Only the first prompts.")] = None,
    graph: Annotated[Path | None, typer.Option(help="By default MODEL_DIR/calibration/naive.npz.")] = None,
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
    rows = list(_rows(outcomes))
    _show(rows)
    print(json.dumps({"plan_id": plan.plan_id, "prompts": len(texts), "first_seed": FIRST_SEED, "rows": rows}))


if __name__ == "__main__":
    typer.run(main)
