"""Block engines against torch's eager mode, end to end through a real server.

``python -m benchmarks.bench_engines MODEL_DIR [--engines openvino] [--budgets full,fast] [--batches 1,4] [--rounds 5]``

One server has the model once for each engine, on the same weights, and takes the same requests in turn: alone and four
at a time, at every budget, in an order drawn anew each round. Compared are medians over the rounds of ratios within a
round, of what all requests of a turn took together. From the answers of a round come f, the time of a computed step,
and c, all that is not denoising, for the ideal (T f + c) / (B f + c) of that round; and the largest difference from the
eager engine's frames. Artifacts are built first where there are none. The last line is the same as JSON.

On a machine that does other things, `benchmarks.bench_blocks` tells engines apart with much less noise.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from lemica_backend.blocks.offline import build_offline
from lemica_backend.triton_server import TritonServer
from lemica_client import Client

PROMPT = "a red circle moving right on a navy background"
EAGER, FULL = "eager", "full"


class Turn(NamedTuple):
    """Requests that are sent together."""

    engine: str
    budget: str
    batch: int


class Round(NamedTuple):
    """What came of a turn in one round.

    Attributes
    ----------
    seconds : float
        From the first request to the last answer.
    step_s : float
        Median over the computed steps, of however many requests shared it.
    rest_s : float
        What was not denoising, of all requests.
    computed, steps : int
        B and T.
    frames : list of ndarray
    """

    seconds: float
    step_s: float
    rest_s: float
    computed: int
    steps: int
    frames: list[Any]


def add_models(repository: Path, model_dir: Path, engines: Sequence[str]) -> None:
    """Write a model folder for each engine, on the weights and artifacts of `model_dir`."""
    version = (model_dir / "1").resolve()
    for engine in engines:
        folder = repository / engine / "1"
        folder.mkdir(parents=True)
        config = json.loads((version / "model.json").read_text(encoding="utf-8"))
        config |= {"weights": str(version / config["weights"]), "log": {"requests": "off"}}
        config["blocks"] = {"engine": engine, "artifacts": str(version / "blocks")}
        (folder / "model.json").write_text(json.dumps(config), encoding="utf-8")
        text = (model_dir / "config.pbtxt").read_text(encoding="utf-8")
        (folder.parent / "config.pbtxt").write_text(text.replace(f'"{model_dir.name}"', f'"{engine}"'))


def take(clients: Mapping[str, Client], turn: Turn) -> Round:
    """Send the requests of a turn, each with a seed of its own."""
    began = time.perf_counter()
    with ThreadPoolExecutor(turn.batch) as threads:
        ask = clients[turn.engine].generate
        videos = list(threads.map(lambda seed: ask(PROMPT, seed=seed, budget=turn.budget), range(turn.batch)))
    seconds, infos = time.perf_counter() - began, [video.info for video in videos]
    steps_ms = [ms for info in infos for ms, is_computed in info["step_ms"] if is_computed]
    rest_ms = [info["timings_ms"][stage] for info in infos for stage in ("encode_text", "decode")]
    return Round(
        seconds,
        median(steps_ms) / 1e3,
        sum(rest_ms) / 1e3,
        len(infos[0]["computed_steps"]),
        infos[0]["num_inference_steps"],
        [video.frames.astype(int) for video in videos],
    )


def measure(server: TritonServer, turns: Sequence[Turn], rounds: int) -> dict[Turn, list[Round]]:
    """Take every turn once a round, in an order drawn anew."""
    found: dict[Turn, list[Round]] = defaultdict(list)
    clients = {name: Client(f"grpc://{server.grpc_url}", model=name) for name in {turn.engine for turn in turns}}
    for engine in clients:  # not counted
        take(clients, Turn(engine, FULL, 1))
    for seed in range(rounds):
        for turn in random.Random(seed).sample(list(turns), len(turns)):  # noqa: S311
            found[turn].append(take(clients, turn))
    for client in clients.values():
        client.close()
    return dict(found)


def figures(found: Mapping[Turn, Sequence[Round]], turn: Turn) -> dict[str, Any]:
    """Return one row of the table."""
    own, eager, full = (found[each] for each in (turn, turn._replace(engine=EAGER), turn._replace(budget=FULL)))
    ratios = [theirs.seconds / ours.seconds for theirs, ours in zip(eager, own, strict=True)]
    speed_ups = [whole.seconds / part.seconds for whole, part in zip(full, own, strict=True)]
    of_ideal = [up / ideal(whole, part) for up, whole, part in zip(speed_ups, full, own, strict=True)]
    pairs = [
        pair for theirs, ours in zip(eager, own, strict=True) for pair in zip(theirs.frames, ours.frames, strict=True)
    ]
    return {
        **turn._asdict(),
        "seconds": median(each.seconds for each in own),
        "times_eager": median(ratios),
        "times_eager_lowest": min(ratios),
        "times_eager_highest": max(ratios),
        "f_ms": median(each.step_s for each in full) * 1e3,
        "c_ms": median(each.rest_s for each in full) * 1e3,
        "speed_up": median(speed_ups),
        "of_ideal": median(of_ideal),
        "frames_off": max(int(np.abs(theirs - ours).max()) for theirs, ours in pairs),
    }


def ideal(full: Round, own: Round) -> float:
    """Return (T f + c) / (B f + c), where f is what a step of one request costs when all of them compute."""
    f = (full.seconds - full.rest_s) / full.steps
    return (own.steps * f + full.rest_s) / (own.computed * f + full.rest_s)


def show(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table."""
    table = Table("engine", "budget", "batch", "s", "times eager", "f (ms)", "c (ms)", "speed-up", "of ideal", "frames")
    for row in rows:
        spread = f"{row['times_eager_lowest']:.2f} to {row['times_eager_highest']:.2f}"
        table.add_row(
            row["engine"],
            row["budget"],
            str(row["batch"]),
            f"{row['seconds']:.2f}",
            f"{row['times_eager']:.2f} ({spread})",
            f"{row['f_ms']:.0f}",
            f"{row['c_ms']:.0f}",
            f"{row['speed_up']:.2f}",
            f"{row['of_ideal']:.2f}",
            str(row["frames_off"]),
        )
    return table


def main(
    model_dir: Annotated[Path, typer.Argument(help="Model folder: the one with config.pbtxt.")],
    engines: str = "openvino,onnxruntime",
    budgets: str = "full,fast",
    batches: str = "1,4",
    rounds: Annotated[int, typer.Option(min=1)] = 5,
) -> None:
    """Measure and print."""
    names = [EAGER, *engines.split(",")]
    for name in names[1:]:
        build_offline(model_dir, name)
    turns = [
        Turn(name, budget, batch)
        for batch in map(int, batches.split(","))
        for budget in budgets.split(",")
        for name in names
    ]
    with tempfile.TemporaryDirectory() as folder:
        add_models(Path(folder) / "models", model_dir, names)
        with TritonServer(Path(folder) / "models", log=Path(folder) / "server.log") as server:
            server.wait_ready(timeout_s=600)
            found = measure(server, turns, rounds)
    rows = [figures(found, turn) for turn in turns]
    console = Console(width=160)
    console.print(show(rows))
    print(json.dumps(rows))


if __name__ == "__main__":
    typer.run(main)
