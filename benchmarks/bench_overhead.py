"""What a request through Triton takes beside the same request to the engine in process, one at a time.

``python -m benchmarks.bench_overhead [REPOSITORY] [MODEL] --minutes 11 --output FILE``

Both engines hold the same weights and plan and run the same seed; the one that is idle sleeps. What Triton adds is
some milliseconds for each request and perhaps some for each step, far below what whole requests differ by. So
it is measured where it is large beside the rest: with few steps, many times, in quadruples (engine, Triton, Triton,
engine), which a steady drift of the machine's speed does not touch. Two numbers of steps tell what belongs to the
request and what to a step, and both together what a whole request has added to it:

    added(T) = added(n) + (T - n) (added(m) - added(n)) / (m - n),    n < m < T

over the time of whole requests in process (`--whole` each). With m = T (``--few 9 50``) whole requests are compared as
they are, which needs a quieter machine or more time. Estimates are Hodges and Lehmann's: medians of the means of
all pairs of quadruples, which outliers hardly move. Intervals are 95 % bootstraps over quadruples.

Beside it stand two measures that other work on the machine does not disturb: the processor time of all processes
together, and what each request of Triton's spent outside of the engine, its time from sending to the array less the
engine's own total. The last line is the same as JSON.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tritonclient.grpc
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.load.servers import LoadServer, serving
from lemica_backend.config import load_config
from lemica_backend.engine import Engine, load_engine
from lemica_backend.replay import newest_version
from lemica_backend.types import GenerationRequest
from lemica_planner import ConfigError
from lemica_planner.config_writer import read_plan

PROMPT = "a red circle moving right on a navy background"
SEED = 7
_RESAMPLES = 1000
_WARM_UP = 2  # quadruples of each number of steps that do not count
_TICKS = os.sysconf("SC_CLK_TCK")


class Run(NamedTuple):
    """One request: seconds until its frames were there, of the clock, of all processors, and by the engine's clock."""

    seconds: float
    processor_s: float
    engine_s: float


class Quadruple(NamedTuple):
    """Two runs each way: what Triton's took more in the mean, and means of one way."""

    added_s: float
    added_processor_s: float
    processor_s: float
    outside_s: float


class Added(NamedTuple):
    """What Triton adds to a whole request; shares are of the request in process, intervals 95 %."""

    budget: str
    in_process_s: float
    added_s: float
    share: float
    low: float
    high: float


Way = Callable[[GenerationRequest], Run]
Found = Mapping[int, Sequence[Quadruple]]


def measure(
    repository: Annotated[Path, typer.Argument()] = Path("model_repository"),
    model: Annotated[str, typer.Argument()] = "latte_shapes",
    *,
    few: Annotated[tuple[int, int], typer.Option(help="Two small numbers of steps.")] = (1, 9),
    steps: Annotated[int, typer.Option(help="Of a whole request; budgets of the plan need its own number.")] = 50,
    budgets: Annotated[str, typer.Option(help="Of whole requests, with commas between them.")] = "full,fast",
    whole: Annotated[int, typer.Option(min=1, help="Whole requests of each budget, in process.")] = 5,
    minutes: Annotated[float, typer.Option(min=0.01, help="For the quadruples; the rest takes about one more.")] = 11.0,
    at_most: Annotated[float, typer.Option(min=0, help="Share of a whole request that Triton may add.")] = 0.03,
    output: Annotated[Path | None, typer.Option(help="Where the JSON goes, too.")] = None,
) -> None:
    """Print what Triton adds; exit status 1 unless all of the interval is what it may."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the server gets it
    engine = _engine(repository / model)  # before the server, whose processes inherit a mark
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "models").mkdir()  # of this one model, so that nothing else runs
        (Path(folder) / "models" / model).symlink_to((repository / model).resolve())
        with serving(Path(folder) / "models", log=Path(folder) / "server.log") as server:
            client = tritonclient.grpc.InferenceServerClient(server.grpc_url)
            processors = partial(_processor_s, server)
            ways = (partial(_in_process, engine, processors), partial(_through_triton, client, model, processors))
            found = quadruples(ways, few, 60 * minutes)
            times = {
                budget: float(np.median([ways[0](_request(budget, steps)).seconds for _ in range(whole)]))
                for budget in budgets.split(",")
            }
            client.close()
    engine.close()
    values = {"model": model, "steps": steps, "at_most": at_most, **summary(found, steps, times)}
    _show(values)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(values) + "\n")
    typer.echo(json.dumps(values))
    over = [f"{each['budget']}: up to {each['high']:.2%}" for each in values["whole"] if each["high"] > at_most]
    if over:
        raise SystemExit(f"Triton is not shown to add at most {at_most:.2%}: {', '.join(over)}")


def quadruples(ways: Sequence[Way], few: Sequence[int], seconds: float) -> Found:
    """Return the quadruples of each number of steps that fit into the time; each gets the same part of it."""
    found: dict[int, list[Quadruple]] = {count: [] for count in few}
    spent = dict.fromkeys(few, 0.0)
    for count in few:
        for _ in range(_WARM_UP):
            _quadruple(ways, _request("full", count))
    with tqdm(total=round(seconds), unit="s", leave=False) as bar:
        while sum(spent.values()) < seconds or min(map(len, found.values())) < 2:
            count = min(few, key=lambda each: spent[each])
            began = time.perf_counter()
            found[count].append(_quadruple(ways, _request("full", count)))
            spent[count] += time.perf_counter() - began
            bar.update(round(sum(spent.values())) - bar.n)
    return found


def _quadruple(ways: Sequence[Way], request: GenerationRequest) -> Quadruple:
    engine, triton, again, last = (ways[way](request) for way in (0, 1, 1, 0))
    return Quadruple(
        (triton.seconds + again.seconds - engine.seconds - last.seconds) / 2,
        (triton.processor_s + again.processor_s - engine.processor_s - last.processor_s) / 2,
        (engine.processor_s + last.processor_s) / 2,
        (triton.seconds - triton.engine_s + again.seconds - again.engine_s) / 2,
    )


def summary(found: Found, steps: int, times: Mapping[str, float]) -> dict[str, Any]:
    """Return what is added to whole requests, and what it comes from; `times` are theirs in process, by budget."""
    few, more = sorted(found)
    columns = {count: np.array(found[count]) for count in (few, more)}
    rng = np.random.default_rng(0)

    def whole(column: int, picks: Mapping[int, NDArray[np.int64]] | None = None) -> float:
        at = {
            count: hodges_lehmann(values[:, column] if picks is None else values[picks[count], column])
            for count, values in columns.items()
        }
        return at[few] + (steps - few) * (at[more] - at[few]) / (more - few)

    drawn = []
    for _ in range(_RESAMPLES):
        picks = {count: rng.integers(0, len(values), len(values)) for count, values in columns.items()}
        drawn.append(whole(0, picks))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {
        "quadruples": {count: len(values) for count, values in columns.items()},
        "added_s": {count: hodges_lehmann(values[:, 0]) for count, values in columns.items()},
        "outside_s": {count: float(np.median(values[:, 3])) for count, values in columns.items()},
        "added_processor_share": {
            count: float(values[:, 1].sum() / values[:, 2].sum()) for count, values in columns.items()
        },
        "whole": [
            Added(budget, time_s, whole(0), whole(0) / time_s, float(low) / time_s, float(high) / time_s)._asdict()
            for budget, time_s in times.items()
        ],
    }


def hodges_lehmann(values: NDArray[np.float64]) -> float:
    """Return the median of the means of all pairs, each value with itself included."""
    rows, columns = np.triu_indices(len(values))
    return float(np.median((values[rows] + values[columns]) / 2))


def _engine(folder: Path) -> Engine:
    version = newest_version(folder)
    try:
        plan = read_plan(folder / "config.pbtxt").to_json()
    except ConfigError:
        plan = None
    return load_engine(version, load_config(version / "model.json"), plan)


def _request(budget: str, steps: int) -> GenerationRequest:
    return GenerationRequest(PROMPT, seed=SEED, budget=budget, num_inference_steps=steps)


def _in_process(engine: Engine, processors: Callable[[], float], request: GenerationRequest) -> Run:
    processor_s, began = processors(), time.perf_counter()
    result = engine.generate(request)
    seconds = time.perf_counter() - began
    assert result.frames.ndim == 4
    return Run(seconds, processors() - processor_s, result.info["timings_ms"]["total"] / 1e3)


def _through_triton(
    client: tritonclient.grpc.InferenceServerClient,
    model: str,
    processors: Callable[[], float],
    request: GenerationRequest,
) -> Run:
    tensors = _tensors(request)
    outputs = [tritonclient.grpc.InferRequestedOutput(name) for name in ("video", "info")]
    processor_s, began = processors(), time.perf_counter()
    answer = client.infer(model, tensors, outputs=outputs)
    frames = answer.as_numpy("video")[0]
    seconds = time.perf_counter() - began
    assert frames.ndim == 4
    info = json.loads(answer.as_numpy("info")[0, 0])
    return Run(seconds, processors() - processor_s, info["timings_ms"]["total"] / 1e3)


def _tensors(request: GenerationRequest) -> list[tritonclient.grpc.InferInput]:
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
    return tensors


def _processor_s(server: LoadServer) -> float:
    """Return the processor time of the server's processes, of this one, and of those that this one started."""
    pids = {process.pid for process in server.processes()} | {os.getpid()}
    children = [pid for thread in Path("/proc/self/task").glob("*/children") for pid in thread.read_text().split()]
    return sum(map(_of_process_s, pids | set(map(int, children))))


def _of_process_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _show(values: Mapping[str, Any]) -> None:
    few = Table("steps", "quadruples", "added (ms)", "outside of the engine (ms)", "added processor time")
    for count, number in values["quadruples"].items():
        added, outside = (f"{1e3 * values[name][count]:.1f}" for name in ("added_s", "outside_s"))
        few.add_row(str(count), str(number), added, outside, f"{values['added_processor_share'][count]:.1%}")
    Console().print(few)
    whole = Table("budget", "in process (s)", "added (ms)", "share", "95 %", title=f"{values['steps']} steps")
    for each in values["whole"]:
        figures = (f"{each['in_process_s']:.2f}", f"{1e3 * each['added_s']:.1f}", f"{each['share']:.2%}")
        whole.add_row(each["budget"], *figures, f"{each['low']:.2%} to {each['high']:.2%}")
    Console().print(whole)


if __name__ == "__main__":
    typer.run(measure)
