"""What it costs to compute in a process of its own: the engine on a process worker against the engine on the model.

``python -m benchmarks.bench_workers MODEL_DIR/VERSION [--repeats 5] [--budgets full,fast]``

Both engines are loaded once and take the same requests in turn, in an order drawn anew. Compared are medians of whole
requests, as a ratio, and what of each step, text and decoding was spent outside the worker: the time that the engine
waited, less what the worker says that it took. The second does not depend on what else runs here. The last line is the
same as JSON.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lemica_backend.config import load_config
from lemica_backend.engine import Engine, load_engine
from lemica_backend.opening import open_model
from lemica_backend.process_worker import ProcessWorker
from lemica_backend.types import GenerationRequest
from lemica_planner.config_writer import read_plan

PROMPT = "a red circle moving right on a navy background"


class Hops:
    """Times what a process worker's calls take beyond what the worker itself took, in ms by call."""

    def __init__(self) -> None:
        self.ms: dict[str, list[float]] = defaultdict(list)

    def watch(self) -> None:
        """Wrap the calls of all process workers."""
        for name in ("start", "step", "decode"):
            setattr(ProcessWorker, name, self._timed(name, getattr(ProcessWorker, name)))

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            value = call(*arguments)
            self.ms[name].append((time.perf_counter() - began - value.seconds) * 1e3)
            return value

        return timed


def measure(engines: dict[str, Engine], budgets: list[str], repeats: int) -> dict[tuple[str, str], list[float]]:
    """Return the seconds of whole requests, by engine and budget."""
    turns = [(name, budget) for name in engines for budget in budgets]
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for seed in range(repeats):
        for name, budget in random.Random(seed).sample(turns, len(turns)):  # noqa: S311
            began = time.perf_counter()
            engines[name].generate(GenerationRequest(PROMPT, seed=seed, budget=budget))
            seconds[name, budget].append(time.perf_counter() - began)
    return seconds


def main(
    folder: Annotated[Path, typer.Argument(help="the version folder of a model")],
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    budgets: str = "full,fast",
) -> None:
    """Measure and print."""
    config, plan, hops = load_config(folder / "model.json"), read_plan(folder.parent / "config.pbtxt"), Hops()
    hops.watch()
    engines = {
        "model": Engine(open_model(folder, config), config, plan),
        "process": load_engine(folder, config, plan.to_json()),
    }
    names = budgets.split(",")
    measure(engines, names, 1)  # not counted
    hops.ms.clear()
    seconds = measure(engines, names, repeats)
    for engine in engines.values():
        engine.close()
    table = Table("budget", "model (s)", "process (s)", "ratio of medians")
    found: dict[str, Any] = {"hops_ms": {name: median(values) for name, values in hops.ms.items()}, "ratios": {}}
    for budget in names:
        here, there = (median(seconds[name, budget]) for name in engines)
        found["ratios"][budget] = there / here
        table.add_row(budget, f"{here:.3f}", f"{there:.3f}", f"{there / here:.3f}")
    console = Console()
    console.print(table)
    for name, value in found["hops_ms"].items():
        console.print(f"{name}: {value:.3f} ms beyond the worker's own time, median of {len(hops.ms[name])}")
    console.print_json(json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
