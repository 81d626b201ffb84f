"""Block engines against torch's eager mode, step by step in one process.

``python -m benchmarks.bench_blocks MODEL_DIR [--engines openvino,onnxruntime] [--rounds 40]``

Every engine takes a computed step of one request, and of four together, in turn, in an order drawn anew each round; so
whatever else the machine does hits all of them. Compared are medians of the wall time and of the processor time of a
step, stem, head, guidance and sampler included. The last line is the table as JSON.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table

from lemica_backend.blocks.offline import build_offline
from lemica_backend.config import ModelConfig, load_config
from lemica_backend.job import Job, start_job
from lemica_backend.measuring import timed_tick
from lemica_backend.models import VideoModel
from lemica_backend.opening import open_model
from lemica_backend.planned import FULL, plan_request
from lemica_backend.types import GenerationRequest

PROMPT = "a red circle moving right on a navy background"
EAGER = "eager"
BATCHES = (1, 4)


class Spent(NamedTuple):
    """One step: seconds of the clock, and of all processors."""

    wall_s: float
    processor_s: float


def open_engines(folder: Path, names: Sequence[str]) -> dict[str, tuple[VideoModel, ModelConfig]]:
    """Return the model once for each engine."""
    config = load_config(folder / "model.json")
    opened = {}
    for name in names:
        blocks = config.blocks.model_copy(update={"engine": name, "required": True})
        own = config.model_copy(update={"blocks": blocks})
        opened[name] = (open_model(folder, own), own)
    return opened


def jobs_of(model: VideoModel, config: ModelConfig, count: int) -> list[Job]:
    """Return requests at their first step."""
    planned = plan_request(GenerationRequest(PROMPT, seed=0, budget=FULL), info=model.info, config=config, plan=None)
    return [start_job(model, planned) for _ in range(count)]


def take_step(model: VideoModel, config: ModelConfig, count: int) -> Spent:
    """Take the first step of so many requests together."""
    jobs, began = jobs_of(model, config, count), time.process_time()
    return Spent(timed_tick(model, jobs), time.process_time() - began)


def measure(opened: Mapping[str, tuple[VideoModel, ModelConfig]], rounds: int) -> dict[tuple[str, int], list[Spent]]:
    """Return what each engine's steps took, by the number of requests together."""
    turns = [(name, count) for name in opened for count in BATCHES]
    spent: dict[tuple[str, int], list[Spent]] = defaultdict(list)
    with torch.inference_mode():
        for turn in turns:  # not counted
            take_step(*opened[turn[0]], turn[1])
        for seed in range(rounds):
            for name, count in random.Random(seed).sample(turns, len(turns)):  # noqa: S311
                spent[name, count].append(take_step(*opened[name], count))
    return spent


def figures(spent: Mapping[tuple[str, int], Sequence[Spent]], name: str, count: int) -> dict[str, Any]:
    """Return one row of the table."""
    own, eager = spent[name, count], spent[EAGER, count]
    ratios = [theirs.wall_s / ours.wall_s for theirs, ours in zip(eager, own, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    processor_s = median(each.processor_s for each in own)
    return {
        "engine": name,
        "requests": count,
        "step_ms": median(each.wall_s for each in own) * 1e3,
        "times_eager": median(ratios),
        "quartiles": [low, high],
        "processor_ms": processor_s * 1e3,
        "times_eager_processor": median(each.processor_s for each in eager) / processor_s,
    }


def main(
    model_dir: Annotated[Path, typer.Argument(help="Model folder: the one with config.pbtxt.")],
    engines: str = "openvino,onnxruntime",
    rounds: Annotated[int, typer.Option(min=4)] = 40,
) -> None:
    """Measure and print."""
    names = [EAGER, *engines.split(",")]
    for name in names[1:]:
        build_offline(model_dir, name)
    opened = open_engines(model_dir / "1", names)
    spent = measure(opened, rounds)
    rows = [figures(spent, name, count) for count in BATCHES for name in names]
    table = Table("engine", "requests", "step (ms)", "times eager", "quartiles", "processor (ms)", "times eager")
    for row in rows:
        low, high = row["quartiles"]
        step = f"{row['step_ms']:.0f}", f"{row['times_eager']:.2f}", f"{low:.2f} to {high:.2f}"
        processor = f"{row['processor_ms']:.0f}", f"{row['times_eager_processor']:.2f}"
        table.add_row(row["engine"], str(row["requests"]), *step, *processor)
    Console(width=120).print(table)
    print(json.dumps(rows))


if __name__ == "__main__":
    typer.run(main)
