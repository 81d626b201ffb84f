"""The engine's scheduling against whole-request batches, batches by steps, and one request at a time, in process.

``python -m benchmarks.bench_scheduling [MODEL_DIR/VERSION] --steps 20 --requests 40 --repeats 5 --output FILE``

Without a folder, a tiny model of random weights is made on the spot. Every repeat measures the capacity first, which is
the mean time of a request that runs alone, over the mix of budgets. Then every way to serve gets the same requests, in
an order drawn anew: four at once; Poisson arrivals at 70 % of the capacity; Poisson arrivals at 150 %, each with a
deadline of five such mean times. Under these two, the engine is also run with budgets as ranges, from the smallest in
the mix up to the one asked for; requests without a choice ask for the same budgets. Plans are uniform steps: only times
are compared. The engine and its measured profile are those of ``load_engine``. Ratios of the engine to each other way
are means over repeats with 95 % bootstrap intervals; below 1 is better for latencies, above 1 for deadlines met and
requests a second. The last line is the same as JSON.
"""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.batching_rivals import Batches
from benchmarks.bench_outcomes import bootstrap
from lemica_backend.config import ModelConfig, load_config
from lemica_backend.cost_model import Work
from lemica_backend.engine import Engine
from lemica_backend.errors import LemicaError
from lemica_backend.measuring import measure_profile
from lemica_backend.models import VideoModel
from lemica_backend.opening import open_model
from lemica_backend.profile import Profile
from lemica_backend.types import GenerationRequest, GenerationResult, Outcome
from lemica_planner import CachePlan, Provenance, uniform_steps
from lemica_planner.plan import default_names

PROMPT = "a red circle moving right on a navy background"
BURST = 4
LOADS = {"70 %": 0.7, "150 %": 1.5}
RANGED = "engine with ranges"
DEADLINE = 5.0  # mean times of a request alone
BATCH = 4


class Served(Protocol):
    """A way to serve."""

    def submit(self, request: GenerationRequest, *, on_done: Callable[[Outcome], None]) -> None:
        """Queue a request."""

    def close(self) -> None:
        """End."""


class Setup(NamedTuple):
    """What every way to serve gets."""

    model: VideoModel
    config: ModelConfig
    plan: CachePlan
    profile: Profile
    budgets: tuple[str, ...]

    def ways(self) -> dict[str, Callable[[], Served]]:
        """Return the ways to serve by name; the engine comes first."""
        return {
            "engine": lambda: Engine(self.model, self.config, self.plan, profile=self.profile),
            "whole batches": lambda: Batches(self.model, self.config, self.plan, most=BATCH, is_open=False),
            "batches by steps": lambda: Batches(self.model, self.config, self.plan, most=2 * BATCH, is_open=True),
            "one at a time": lambda: Batches(self.model, self.config, self.plan, most=1, is_open=False),
        }


class Sent(NamedTuple):
    """One request of a load: when it is sent, and what it asks for."""

    at_s: float
    request: GenerationRequest


class Measured(NamedTuple):
    """What one way made of one load; latencies are NaN where the request was refused or dropped."""

    latencies_s: NDArray[np.float64]
    whole_s: float

    def values(self, deadline_s: float) -> dict[str, float]:
        """Return what is compared."""
        done = self.latencies_s[np.isfinite(self.latencies_s)]
        return {
            "mean_s": float(done.mean()) if len(done) else float("nan"),
            "p95_s": float(np.quantile(done, 0.95)) if len(done) else float("nan"),
            "met": float((done <= deadline_s).sum() / len(self.latencies_s)),
            "per_s": len(done) / self.whole_s,
        }


def prepare(folder: Path, steps: int, scheduling: dict[str, Any]) -> Setup:
    """Load the model and measure it as at load."""
    base = load_config(folder / "model.json") if (folder / "model.json").exists() else ModelConfig()
    defaults = base.defaults.model_copy(update={"num_inference_steps": steps, "budget": "full"})
    changed = base.scheduling.model_copy(update=scheduling)
    config = base.model_copy(update={"defaults": defaults, "scheduling": changed})
    model = open_model(folder, config)
    plan = uniform_plan(steps)
    return Setup(model, config, plan, measure_profile(model, config, plan), (*sorted(plan.names), "full"))


def uniform_plan(steps: int) -> CachePlan:
    """Return every budget from a fifth of the steps on, spaced evenly."""
    budgets = range(max(2, steps // 5), steps)
    paths = {budget: uniform_steps(steps, budget) for budget in budgets}
    return CachePlan.from_steps(Provenance(num_inference_steps=steps), paths, names=default_names(steps, budgets))


def serve(make: Callable[[], Served], load: Sequence[Sent]) -> Measured:
    """Send a load and wait for every answer."""
    latencies, left = np.full(len(load), np.nan), threading.Semaphore(0)
    way, began = make(), time.perf_counter()
    for number, sent in enumerate(load):
        time.sleep(max(0.0, began + sent.at_s - time.perf_counter()))
        arrived = time.perf_counter()

        def take(outcome: Outcome, number: int = number, arrived: float = arrived) -> None:
            if isinstance(outcome, GenerationResult):
                latencies[number] = time.perf_counter() - arrived
            left.release()

        try:
            way.submit(sent.request, on_done=take)
        except LemicaError:
            left.release()
    for _ in load:
        left.acquire()
    whole_s = time.perf_counter() - began
    way.close()
    return Measured(latencies, whole_s)


def capacity_s(setup: Setup) -> float:
    """Return the mean seconds of a request alone, over the mix."""
    load = [Sent(0.0, GenerationRequest(PROMPT, seed=1, budget=budget)) for budget in setup.budgets]
    return serve(setup.ways()["one at a time"], load).whole_s / len(load)


def poisson(setup: Setup, mean_s: float, share: float, count: int, rng: random.Random) -> list[Sent]:
    """Return requests of mixed budgets that arrive at `share` of the capacity."""
    at_s, load = 0.0, []
    deadline_ms = round(DEADLINE * mean_s * 1e3) if share > 1 else None
    for number in range(count):
        at_s += rng.expovariate(share / mean_s)
        budget = rng.choice(setup.budgets)
        load.append(Sent(at_s, GenerationRequest(PROMPT, seed=number, budget=budget, deadline_ms=deadline_ms)))
    return load


def with_choice(load: Sequence[Sent]) -> list[Sent]:
    """Return the same requests with ranges that end at the budget they asked for."""
    return [
        sent._replace(request=GenerationRequest(**{**vars(sent.request), "budget": f"fast..{sent.request.budget}"}))
        for sent in load
    ]


def one_repeat(setup: Setup, count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield what each way made of each load, in a random order."""
    mean_s = capacity_s(setup)
    burst = [Sent(0.0, GenerationRequest(PROMPT, seed=seed, budget="slow")) for seed in range(BURST)]
    loads = {name: poisson(setup, mean_s, share, count, rng) for name, share in LOADS.items()}
    runs = [(load, name, make) for load in ("burst", *loads) for name, make in setup.ways().items()]
    runs += [(load, RANGED, setup.ways()["engine"]) for load in loads]
    rng.shuffle(runs)
    for load, name, make in runs:
        sent = burst if load == "burst" else loads[load]
        measured = serve(make, with_choice(sent) if name == RANGED else sent)
        yield {"load": load, "way": name, "alone_s": mean_s, **measured.values(DEADLINE * mean_s)}


def compare(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield ratios of the engine, and of the engine with ranges, to every other way, over repeats."""
    measures = {"burst": ("mean_s",), "70 %": ("mean_s", "p95_s", "per_s"), "150 %": ("met",)}
    pairs = [(load, measure) for load, names in measures.items() for measure in names]
    for (load, measure), ours in product(pairs, ("engine", RANGED)):
        ways = dict.fromkeys(row["way"] for row in rows if row["load"] == load)
        for way in ways if ours in ways else ():
            if way not in ("engine", RANGED) or (ours, way) == (RANGED, "engine"):
                mine, theirs = (_column(rows, load, name, measure) for name in (ours, way))
                yield {"load": load, "measure": measure, "ours": ours, "against": way} | _ratio(mine, theirs)


def _ratio(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> dict[str, Any]:
    ratios = mine / theirs
    values = [float(mine.mean()), float(theirs.mean())]
    return {"ratio": float(ratios.mean()), "interval": bootstrap(ratios), "values": values}


def _column(rows: Sequence[dict[str, Any]], load: str, way: str, measure: str) -> NDArray[np.float64]:
    return np.array([row[measure] for row in rows if (row["load"], row["way"]) == (load, way)])


def sharing(setup: Setup) -> dict[str, float]:
    """Return what k requests in a forward take, over k times one alone."""
    rows, cost = setup.profile.usual_rows, setup.profile.cost
    alone = cost.seconds(Work("compute", rows))
    return {str(k): cost.seconds(Work("compute", k * rows)) / (k * alone) for k in (1, 2, 4)}


def _show(found: Sequence[dict[str, Any]]) -> None:
    table = Table("load", "measure", "ours", "against", "ratio", "95 %", "ours", "theirs")
    for row in found:
        low, high = row["interval"]
        ours, theirs = row["values"]
        names = (row["load"], row["measure"], row["ours"], row["against"])
        table.add_row(*names, f"{row['ratio']:.3f}", f"{low:.3f}-{high:.3f}", f"{ours:.3g}", f"{theirs:.3g}")
    Console().print(table)


def main(
    folder: Annotated[Path | None, typer.Argument(help="A version folder, with model.json.")] = None,
    *,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 20,
    requests: Annotated[int, typer.Option(help="Of each Poisson load.")] = 40,
    repeats: Annotated[int, typer.Option(help="Of everything.")] = 5,
    seed: Annotated[int, typer.Option(help="Of arrivals, budgets and orders.")] = 0,
    policy: Annotated[str, typer.Option(help="Of the engine.")] = "srpt",
    output: Annotated[Path | None, typer.Option(help="Also write the JSON there.")] = None,
) -> None:
    """Print the comparison as a table, then as one line of JSON."""
    with tempfile.TemporaryDirectory() as made:
        if folder is None:
            folder = Path(made)
            import_module("tests.tiny_latte").build_tiny_latte(folder / "weights")
        setup, rng = prepare(folder, steps, {"policy": policy}), random.Random(seed)  # noqa: S311 - no secret
        total = repeats * ((1 + len(LOADS)) * len(setup.ways()) + len(LOADS))
        rows: list[dict[str, Any]] = []
        with tqdm(total=total, unit="run") as bar:
            for repeat in range(repeats):
                for row in one_repeat(setup, requests, rng):
                    rows.append({"repeat": repeat, **row})
                    bar.update()
    found = list(compare(rows))
    _show(found)
    known = {"steps": steps, "requests": requests, "repeats": repeats, "seed": seed, "policy": policy}
    text = json.dumps({**known, "sharing": sharing(setup), "ratios": found, "rows": rows})
    if output:
        output.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
