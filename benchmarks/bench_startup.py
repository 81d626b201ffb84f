"""How long a server takes until it can serve a model, by block engine.

``python -m benchmarks.bench_startup MODEL_DIR [--engines openvino] [--rounds 5]``

A server with the one model is started and stopped for each engine in turn, in an order drawn anew each round. Artifacts
are built first where there are none. What an engine adds is its median less eager's. The last line is the same as JSON.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.bench_engines import EAGER, add_models, split_name
from lemica_backend.blocks.offline import build_offline
from lemica_backend.triton_server import TritonServer


def seconds_to_ready(repository: Path) -> float:
    """Start a server, wait until its model can be asked, and stop it."""
    began = time.perf_counter()
    with TritonServer(repository, log=repository / "server.log") as server:
        server.wait_ready(timeout_s=600)
        return time.perf_counter() - began


def measure(model_dir: Path, names: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every start, by engine."""
    found: dict[str, list[float]] = defaultdict(list)
    turns = [name for seed in range(rounds) for name in random.Random(seed).sample(names, len(names))]  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            add_models(Path(folder) / name, model_dir, [name])
        for name in tqdm(turns, unit="start"):
            found[name].append(seconds_to_ready(Path(folder) / name))
    return dict(found)


def main(
    model_dir: Annotated[Path, typer.Argument(help="Model folder: the one with config.pbtxt.")],
    *,
    engines: str = "openvino",
    rounds: Annotated[int, typer.Option(min=1)] = 5,
) -> None:
    """Measure and print."""
    names = [EAGER, *engines.split(",")]
    for name in names[1:]:
        build_offline(model_dir, *split_name(name))
    found = measure(model_dir, names, rounds)
    eager = median(found[EAGER])
    table = Table("engine", "s, median", "lowest", "highest", "more than eager (s)")
    for name, times in found.items():
        spread = (median(times), min(times), max(times), median(times) - eager)
        table.add_row(name, *(f"{each:.2f}" for each in spread))
    Console().print(table)
    print(json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
