"""What a request through Triton takes beside the same request to the engine in process, one at a time.

``python -m benchmarks.bench_overhead [REPOSITORY] [MODEL] --steps 50 --repeats 12 --output FILE``

Both engines hold the same weights and plan and run the same seed; the one that is idle sleeps. Each repeat times both
for each budget, in an order that alternates: the engine's `generate`, and a unary gRPC request for the raw frames and
the info, from sending to the frames as an array. The ratio is the median over repeats of each pair's ratio, beside that
of the medians; 95 % bootstrap intervals. The first pair of each budget warms up and does not count.

Pairs are noisy where other work runs. So there is also what each request of Triton's spent outside of the engine: its
time from sending to the array, less the engine's own total for that very request, as a share of the latter. The last
line is the same as JSON.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tritonclient.grpc
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from lemica_backend.config import load_config
from lemica_backend.engine import Engine, load_engine
from lemica_backend.replay import newest_version
from lemica_backend.triton_server import TritonServer
from lemica_backend.types import GenerationRequest
from lemica_planner import ConfigError
from lemica_planner.config_writer import read_plan

PROMPT = "a red circle moving right on a navy background"
SEED = 7
_RESAMPLES = 2000


class Run(NamedTuple):
    """One request: frames (F, height, width, 3), and the engine's milliseconds from arrival to the end."""

    frames: NDArray[np.uint8]
    total_ms: float


Way = Callable[[GenerationRequest], Run]


class Overhead(NamedTuple):
    """What was measured for one budget; seconds, and their quotients; `outside_share` is of the engine's own total."""

    budget: str
    engine_s: float
    triton_s: float
    ratio_of_medians: float
    median_ratio: float
    low: float
    high: float
    outside_share: float
    pairs: int


def measure(
    repository: Annotated[Path, typer.Argument()] = Path("model_repository"),
    model: Annotated[str, typer.Argument()] = "latte_shapes",
    *,
    steps: Annotated[int, typer.Option(help="Denoising steps; budgets of the plan need its own number.")] = 50,
    budgets: Annotated[str, typer.Option(help="With commas between them.")] = "full,fast",
    repeats: Annotated[int, typer.Option(min=2)] = 12,
    output: Annotated[Path | None, typer.Option(help="Where the JSON goes, too.")] = None,
) -> None:
    """Print the overhead of Triton for each budget."""
    with tempfile.TemporaryDirectory() as folder:
        # a repository of this one model, so that nothing else runs
        (Path(folder) / model).symlink_to((repository / model).resolve())
        with TritonServer(Path(folder), log=Path(folder) / "server.log") as server:
            server.wait_ready(timeout_s=600)
            engine = _engine(repository / model)
            client = tritonclient.grpc.InferenceServerClient(server.grpc_url)
            found = [
                _compare(engine, partial(_through_triton, client, model), _request(budget, steps), repeats)
                for budget in budgets.split(",")
            ]
            client.close()
            engine.close()
    _show(found)
    text = json.dumps({"model": model, "steps": steps, "overheads": [each._asdict() for each in found]})
    if output:
        output.write_text(text + "\n")
    typer.echo(text)


def _engine(folder: Path) -> Engine:
    version = newest_version(folder)
    try:
        plan = read_plan(folder / "config.pbtxt").to_json()
    except ConfigError:
        plan = None
    return load_engine(version, load_config(version / "model.json"), plan)


def _request(budget: str, steps: int) -> GenerationRequest:
    return GenerationRequest(PROMPT, seed=SEED, budget=budget, num_inference_steps=steps)


def _compare(engine: Engine, through_triton: Way, request: GenerationRequest, repeats: int) -> Overhead:
    ways: list[Way] = [partial(_in_process, engine), through_triton]
    times: list[list[float]] = [[], []]
    outside = []
    for repeat in tqdm(range(repeats + 1), desc=request.budget, leave=False):
        for way in (0, 1) if repeat % 2 else (1, 0):
            started = time.perf_counter()
            run = ways[way](request)
            times[way].append(time.perf_counter() - started)
            assert run.frames.ndim == 4
            if way == 1:
                outside.append(times[way][-1] * 1e3 / run.total_ms - 1)
    return _overhead(str(request.budget), np.array(times)[:, 1:], float(np.median(outside[1:])))


def _in_process(engine: Engine, request: GenerationRequest) -> Run:
    result = engine.generate(request)
    return Run(result.frames, result.info["timings_ms"]["total"])


def _through_triton(client: tritonclient.grpc.InferenceServerClient, model: str, request: GenerationRequest) -> Run:
    values = {
        "prompt": np.array([[request.prompt.encode()]], np.object_),
        "budget": np.array([[str(request.budget).encode()]], np.object_),
        "seed": np.array([[request.seed]], np.int64),
        "num_inference_steps": np.array([[request.num_inference_steps]], np.int32),
    }
    types = {"seed": "INT64", "num_inference_steps": "INT32"}
    tensors = [tritonclient.grpc.InferInput(name, [1, 1], types.get(name, "BYTES")) for name in values]
    for tensor, array in zip(tensors, values.values(), strict=True):
        tensor.set_data_from_numpy(array)
    outputs = [tritonclient.grpc.InferRequestedOutput(name) for name in ("video", "info")]
    answer = client.infer(model, tensors, outputs=outputs)
    frames, info = answer.as_numpy("video")[0], json.loads(answer.as_numpy("info")[0, 0])
    return Run(frames, info["timings_ms"]["total"])


def _overhead(budget: str, times: NDArray[np.float64], outside_share: float) -> Overhead:
    ratios = times[1] / times[0]
    drawn = np.random.default_rng(0).choice(ratios, (_RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    engine_s, triton_s = np.median(times, axis=1)
    values = (engine_s, triton_s, triton_s / engine_s, np.median(ratios), low, high)
    first, second, third, fourth, fifth, sixth = (round(float(value), 4) for value in values)
    return Overhead(budget, first, second, third, fourth, fifth, sixth, round(outside_share, 5), len(ratios))


def _show(found: list[Overhead]) -> None:
    table = Table("budget", "engine (s)", "Triton (s)", "ratio of medians", "median ratio", "95 %", "outside")
    for each in found:
        table.add_row(
            each.budget,
            f"{each.engine_s:.3f}",
            f"{each.triton_s:.3f}",
            f"{each.ratio_of_medians:.3f}",
            f"{each.median_ratio:.3f}",
            f"{each.low:.3f} to {each.high:.3f}",
            f"{each.outside_share:.2%}",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(measure)
