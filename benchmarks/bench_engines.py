"""Block engines against torch's eager mode, end to end through a real server.

``python -m benchmarks.bench_engines MODEL_DIR [--engines openvino] [--budgets full,fast] [--batches 1,4] [--rounds 5]``
(``--output FILE`` for the JSON; ``openvino-bfloat16`` is an engine with a precision; without ``full`` among the budgets
there are no speed-ups of caching, but rounds are short)

One server has the model once for each engine, on the same weights, and takes the same requests in turn: alone and four
at a time, at every budget, in an order drawn anew each round. Compared are medians over the rounds of ratios within a
round, of what all requests of a turn took together; and the largest difference from the eager engine's frames.

The ideal (T f + c) / (B f + c) is measured, not computed: f is the time of a computed step, c all that is not
denoising, so B f + c is what a request of B steps takes that computes all of them, and such requests are in every
round. Two points of the line give f and c as well. Artifacts are built first where there are none. The last line is
the same as JSON.

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
    """Requests that are sent together; with `alone`, of the budget's computed steps and no others."""

    engine: str
    budget: str
    batch: int
    alone: bool = False


class Round(NamedTuple):
    """What came of a turn in one round.

    Attributes
    ----------
    seconds : float
        From the first request to the last answer.
    computed : int
        Steps of each request.
    frames : list of ndarray
    """

    seconds: float
    computed: int
    frames: list[Any]


def add_models(repository: Path, model_dir: Path, engines: Sequence[str]) -> None:
    """Write a model folder for each engine, on the weights and artifacts of `model_dir`."""
    version = (model_dir / "1").resolve()
    for engine in engines:
        folder = repository / engine / "1"
        folder.mkdir(parents=True)
        config = json.loads((version / "model.json").read_text(encoding="utf-8"))
        config |= {"weights": str(version / config["weights"]), "log": {"requests": "off"}}
        name, precision = split_name(engine)
        config["blocks"] = {"engine": name, "precision": precision, "artifacts": str(version / "blocks")}
        (folder / "model.json").write_text(json.dumps(config), encoding="utf-8")
        text = (model_dir / "config.pbtxt").read_text(encoding="utf-8")
        (folder.parent / "config.pbtxt").write_text(text.replace(f'"{model_dir.name}"', f'"{engine}"'))


def split_name(engine: str) -> tuple[str, str]:
    """Return engine and precision; without one, the model's own."""
    name, _, precision = engine.partition("-")
    return name, precision or "dtype"


def take(clients: Mapping[str, Client], turn: Turn, plans: Mapping[str, int]) -> Round:
    """Send the requests of a turn, each with a seed of its own."""
    how = {"num_inference_steps": plans[turn.budget], "budget": FULL} if turn.alone else {"budget": turn.budget}
    began = time.perf_counter()
    with ThreadPoolExecutor(turn.batch) as threads:
        ask = clients[turn.engine].generate
        videos = list(threads.map(lambda seed: ask(PROMPT, seed=seed, **how), range(turn.batch)))
    seconds = time.perf_counter() - began
    return Round(seconds, len(videos[0].info["computed_steps"]), [video.frames.astype(int) for video in videos])


def measure(server: TritonServer, turns: Sequence[Turn], rounds: int) -> dict[Turn, list[Round]]:
    """Take every turn once a round, in an order drawn anew."""
    found: dict[Turn, list[Round]] = defaultdict(list)
    clients = {name: Client(f"grpc://{server.grpc_url}", model=name) for name in {turn.engine for turn in turns}}
    plans = {turn.budget: take(clients, turn, {}).computed for turn in turns if not turn.alone}  # not counted
    for seed in range(rounds):
        for turn in random.Random(seed).sample(list(turns), len(turns)):  # noqa: S311
            found[turn].append(take(clients, turn, plans))
    for client in clients.values():
        client.close()
    return dict(found)


def figures(found: Mapping[Turn, Sequence[Round]], turn: Turn) -> dict[str, Any]:
    """Return one row of the table."""
    own, eager = found[turn], found[turn._replace(engine=EAGER)]
    full = found.get(turn._replace(budget=FULL), [])
    alone = found.get(turn._replace(alone=True), own)
    ratios = [theirs.seconds / ours.seconds for theirs, ours in zip(eager, own, strict=True)]
    of_ideal = [least.seconds / ours.seconds for least, ours in zip(alone, own, strict=True)]
    pairs = [
        pair for theirs, ours in zip(eager, own, strict=True) for pair in zip(theirs.frames, ours.frames, strict=True)
    ]
    return {
        "engine": turn.engine,
        "budget": turn.budget,
        "batch": turn.batch,
        "seconds": median(each.seconds for each in own),
        "times_eager": median(ratios),
        "times_eager_lowest": min(ratios),
        "times_eager_highest": max(ratios),
        **line(full, alone),
        "speed_up": median(whole.seconds / part.seconds for whole, part in zip(full, own, strict=True))
        if full
        else None,
        "of_ideal": median(of_ideal),
        "of_ideal_lowest": min(of_ideal),
        "of_ideal_highest": max(of_ideal),
        "frames_off": max(int(np.abs(theirs - ours).max()) for theirs, ours in pairs),
    }


def line(full: Sequence[Round], alone: Sequence[Round]) -> dict[str, float | None]:
    """Return f and c of all requests of a turn, from those of T steps and those of B."""
    more = full[0].computed - alone[0].computed if full else 0
    if not more:
        return {"f_ms": None, "c_ms": None}
    pairs = list(zip(full, alone, strict=True))
    steps = [(long.seconds - short.seconds) / more for long, short in pairs]
    rests = [short.seconds - short.computed * f for f, (_, short) in zip(steps, pairs, strict=True)]
    return {"f_ms": median(steps) * 1e3, "c_ms": median(rests) * 1e3}


def show(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table."""
    table = Table("engine", "budget", "batch", "s", "times eager", "f (ms)", "c (ms)", "speed-up", "of ideal", "frames")
    for row in rows:
        table.add_row(
            row["engine"],
            row["budget"],
            str(row["batch"]),
            f"{row['seconds']:.2f}",
            _spread(row, "times_eager"),
            *("" if row[name] is None else f"{row[name]:.1f}" for name in ("f_ms", "c_ms")),
            "" if row["speed_up"] is None else f"{row['speed_up']:.2f}",
            _spread(row, "of_ideal"),
            str(row["frames_off"]),
        )
    return table


def _spread(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:.2f} ({row[f'{name}_lowest']:.2f} to {row[f'{name}_highest']:.2f})"


def main(
    model_dir: Annotated[Path, typer.Argument(help="Model folder: the one with config.pbtxt.")],
    *,
    engines: str = "openvino,onnxruntime",
    budgets: str = "full,fast",
    batches: str = "1,4",
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    output: Annotated[Path | None, typer.Option(help="The JSON.")] = None,
) -> None:
    """Measure and print."""
    names = [EAGER, *engines.split(",")]
    for name in names[1:]:
        build_offline(model_dir, *split_name(name))
    turns = [
        Turn(name, budget, batch)
        for batch in map(int, batches.split(","))
        for budget in budgets.split(",")
        for name in names
    ]
    alone = [turn._replace(alone=True) for turn in turns if turn.budget != FULL]
    with tempfile.TemporaryDirectory() as folder:
        add_models(Path(folder) / "models", model_dir, names)
        with TritonServer(Path(folder) / "models", log=Path(folder) / "server.log") as server:
            server.wait_ready(timeout_s=600)
            found = measure(server, [*turns, *alone], rounds)
    rows = [figures(found, turn) for turn in turns]
    console = Console(width=160)
    console.print(show(rows))
    print(json.dumps(rows))
    if output:
        output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
