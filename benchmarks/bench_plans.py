"""Compare plans on prompts that none of them was calibrated on.

``python -m benchmarks.bench_plans MODEL_DIR [NAME=GRAPH ...] --prompts FILE``: every prompt is generated in full and,
for each named budget, with the steps of the minimax plan, of the shortest path (the smallest sum of edge weights), of
uniform skipping, and of the plans of other graphs; means over the prompts against the full video. In process, with the
serving engine's own code, because a server serves plans only. The last line is the same as JSON.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from demo.lpips_weights import ensure_weights
from demo.measure import read_prompts
from demo.metrics import Quality, compare
from lemica_backend.config import ModelConfig, load_config
from lemica_backend.denoise import denoise
from lemica_backend.engine import open_model
from lemica_backend.job import Job, start_job
from lemica_backend.models import VideoModel
from lemica_backend.planned import FULL, PlannedRequest, plan_request
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, ErrorGraph, PlanEntry, shortest_path, solve, uniform_steps
from lemica_planner.config_writer import read_plan
from lemica_planner.graph_file import load_graph

FIRST_SEED = 500_000


class Way(NamedTuple):
    """A budget's name and who chose its steps."""

    budget: str
    method: str


class Outcome(NamedTuple):
    """One video against the full one; `latents_l1` is the mean absolute difference of the final latents."""

    quality: Quality
    latents_l1: float


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


def compare_on(
    model: VideoModel, config: ModelConfig, ways: Mapping[Way, PlanEntry], prompt: str, seed: int
) -> dict[Way, Outcome]:
    """Generate one prompt in full and in every way, all of them as rows of the same ticks."""
    request = GenerationRequest(prompt, seed=seed, budget=FULL)
    planned = plan_request(request, info=model.info, config=config, plan=None)
    chosen = [planned, *(_follow(planned, entry) for entry in ways.values())]
    with torch.inference_mode():
        jobs = [start_job(model, each) for each in chosen]
        for _ in range(planned.num_inference_steps):
            denoise(model, jobs)
        full, *others = [_decode(model, job) for job in jobs]
    return {
        way: Outcome(compare(frames, full[0]), float(np.abs(latents - full[1]).mean()))
        for way, (frames, latents) in zip(ways, others, strict=True)
    }


def _follow(planned: PlannedRequest, entry: PlanEntry) -> PlannedRequest:
    return dataclasses.replace(planned, computed=frozenset(entry.steps), reuse=entry.reuse("residual"))


def _decode(model: VideoModel, job: Job) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    return model.decode(job.latents), job.latents.float().cpu().numpy()


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
    config = load_config(model_dir / "1" / "model.json")
    model = open_model(model_dir / "1", config)
    plan = read_plan(model_dir / "config.pbtxt")
    known = load_graph(graph or model_dir / "calibration" / "naive.npz")
    ways = plans(known if isinstance(known, ErrorGraph) else known.to_error_graph(), plan.names)
    ways |= other_plans(others or (), plan.names)
    texts = read_prompts(prompts)[:count]
    outcomes = [
        compare_on(model, config, ways, prompt, FIRST_SEED + number) for number, prompt in enumerate(tqdm(texts))
    ]
    rows = list(_rows(outcomes))
    _show(rows)
    print(json.dumps({"plan_id": plan.plan_id, "prompts": len(texts), "first_seed": FIRST_SEED, "rows": rows}))


if __name__ == "__main__":
    typer.run(main)
