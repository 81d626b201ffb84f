"""The commands that measure latency and throughput."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.load.arrivals import Mix, at_once, changed, poisson
from benchmarks.load.client import run_closed, run_open
from benchmarks.load.journal import Journal
from benchmarks.load.latency import Plan, Rounds
from benchmarks.load.measures import measured
from benchmarks.load.peers.repository import BATCHES, ENGINE, make_repository
from benchmarks.load.perf_analyzer import Load, PerfAnalyzer, Point, show_points
from benchmarks.load.priorities import waits
from benchmarks.load.report import draw, show, summary, without_nan, write_json
from benchmarks.load.servers import serving, temporary_folder
from benchmarks.load.simulate import SimulatedLoad
from benchmarks.load.simulate import simulate as simulated
from lemica_planner.atomic import write_text

_MODEL = Path("model_repository/latte_shapes")
_MIX = "fast=1,medium=1,slow=1,full=1"

Model = Annotated[Path, typer.Argument(help="A model folder with a plan.")]
Steps = Annotated[int | None, typer.Option(min=4, help="Other denoising steps, with evenly spaced plans.")]
MixText = Annotated[str, typer.Option("--mix", help="Budgets with the share of each.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Most requests of a whole-request batch.")]


def latency(
    model: Model = _MODEL,
    *,
    steps: Steps = None,
    mix: MixText = _MIX,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    minutes: Annotated[float, typer.Option(min=0, help="After which no load begins; 0 for all rounds.")] = 0.0,
    count: Annotated[int, typer.Option(min=2, help="Requests of each load.")] = 40,
    shares: Annotated[str, typer.Option(help="Of the capacity, for Poisson arrivals.")] = "0.5,0.7,0.9",
    users: Annotated[int, typer.Option(min=1, help="Of the closed loop that measures the capacity.")] = 8,
    overload: Annotated[float, typer.Option(min=0, help="Share of the capacity at the ceiling; 0 for none.")] = 1.5,
    floor: Annotated[str, typer.Option(help="Of the range that overloaded requests ask for.")] = "fast",
    ceiling: Annotated[str, typer.Option(help="The same.")] = "slow",
    deadline: Annotated[float, typer.Option(min=1, help="In times of a request at the ceiling, at capacity.")] = 5.0,
    max_batch_size: BatchSize = 4,
    only: Annotated[str, typer.Option(help="Ways to measure, with semicolons between their names; all if empty.")] = "",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    journal: Annotated[Path, typer.Option(help="Rows; a run that was stopped goes on.")] = Path("runs/load.jsonl"),
    output: Annotated[Path, typer.Option(help="The JSON.")] = Path("out/load.json"),
    plot: Annotated[Path | None, typer.Option(help="A PNG.")] = None,
) -> None:
    """Compare the latency of lemica, whole-request batches and one request at a time, on one real server."""
    at = tuple(float(share) for share in shares.split(","))
    plan = Plan(
        model.resolve().name, steps, mix, count, at, users, overload, floor, ceiling, deadline, max_batch_size,
        seed,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    kept = Journal(journal, plan.settings())
    with temporary_folder() as folder:
        make_repository(folder, model, max_batch_size=max_batch_size, steps=steps)
        with serving(folder, log=journal.with_suffix(".server.log")) as server:
            measuring = Rounds(server.grpc_url, plan, kept, [name.strip() for name in only.split(";") if name.strip()])
            ends_s = time.monotonic() + 60 * minutes if minutes else math.inf
            with tqdm(total=rounds * measuring.runs_a_round, unit="run") as bar:
                for row in chain.from_iterable(map(measuring.measure, range(rounds))):
                    rows.append(row)
                    bar.set_postfix_str(f"{row['load']}: {row['way']}")
                    bar.update()
                    if time.monotonic() > ends_s:  # the rest is for another time: the journal knows
                        break
    found = summary(plan, rows)
    show(found, Console())
    write_json(found, output)
    if plot:
        draw(found, plot)
    silent = sum(row["silent"] for row in rows)
    if silent:
        raise ValueError(f"{silent:g} requests were not answered")


def perf(
    model: Model = _MODEL,
    *,
    steps: Steps = None,
    mix: MixText = _MIX,
    concurrency: Annotated[str, typer.Option(help="Closed loops, by requests in flight.")] = "1,2,4,8",
    rates: Annotated[str, typer.Option(help="Poisson arrivals, by requests a second; empty for none.")] = "",
    count: Annotated[int, typer.Option(min=2, help="Requests of a measurement.")] = 20,
    peers: Annotated[bool, typer.Option(help="Measure whole-request batches, too.")] = True,
    max_batch_size: BatchSize = 4,
    analyzer: Annotated[Path, typer.Option(help="From scripts/install_perf_analyzer.sh.")] = Path(
        "runs/perf_analyzer/bin/perf_analyzer"
    ),
    output: Annotated[Path, typer.Option(help="The JSON.")] = Path("out/perf_analyzer.json"),
) -> None:
    """Drive the real server with Triton's own perf_analyzer: closed loops, and Poisson arrivals."""
    tool, points = PerfAnalyzer(analyzer), list[Point]()
    loads = [("concurrency", float(each)) for each in concurrency.split(",") if each]
    loads += [("rate", float(each)) for each in rates.split(",") if each]
    names = (ENGINE, BATCHES) if peers else (ENGINE,)
    with temporary_folder() as folder:
        make_repository(folder / "models", model, max_batch_size=max_batch_size, steps=steps)
        with serving(folder / "models", log=folder / "server.log") as server:
            for kind, value in tqdm(loads, unit="load"):
                for name in names:
                    points.append(tool.measure(server.grpc_url, Load(name, mix, kind, value, count), folder))
    show_points(points, Console())
    write_text(output, json.dumps([point._asdict() for point in points], indent=1) + "\n")


def simulate(
    *,
    budgets: Annotated[str, typer.Option(help="Computed steps, each as often as the others.")] = "10,17,25,50",
    steps: Annotated[int, typer.Option(min=2)] = 50,
    share: Annotated[float, typer.Option(min=0.01, help="Of the capacity.")] = 0.7,
    count: Annotated[int, typer.Option(min=2, help="Requests of a round.")] = 100,
    rounds: Annotated[int, typer.Option(min=1)] = 20,
    output: Annotated[Path, typer.Option(help="The JSON.")] = Path("out/load_simulated.json"),
) -> None:
    """Compare the ways on a counted clock, where sharing a forward saves nothing and where it is nearly free."""
    load = SimulatedLoad(tuple(int(each) for each in budgets.split(",")), steps, share, count)
    rows = list(simulated(load, rounds))
    table = Table("device", "way", "p50", "p95", "lemica's p95 / its p95", title="in computed steps of one request")
    for row in rows:
        table.add_row(row.device, row.way, f"{row.p50:.3g}", f"{row.p95:.3g}", f"{row.p95_ratio['ratio']:.3f}")
    Console().print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps([row._asdict() for row in rows], indent=1) + "\n")


def priorities(
    *,
    shares: Annotated[str, typer.Option(help="Of the time for low priorities, to compare.")] = "0,0.1",
    count: Annotated[int, typer.Option(min=100, help="Requests.")] = 1000,
    in_flight: Annotated[int, typer.Option(min=2)] = 8,
    step: Annotated[float, typer.Option(min=0, help="Seconds of a computed step.")] = 0.12,
    rounds: Annotated[int, typer.Option(min=1, help="Each with a seed of its own.")] = 3,
    output: Annotated[Path, typer.Option(help="The JSON.")] = Path("out/priorities.json"),
) -> None:
    """Show on a counted clock how long requests of low priority wait where higher ones come all the time."""
    table = Table("share", "round", "priority", "requests", "median wait (s)", "longest (s)", "over 120 s")
    rows = list[dict[str, Any]]()
    for share in map(float, shares.split(",")):
        for seed in range(rounds):
            for each in waits(share, count=count, in_flight=in_flight, step_s=step, seed=seed):
                rows.append({"round": seed, **each._asdict()})
                figures = (str(each.requests), f"{each.median_s:.1f}", f"{each.longest_s:.1f}", str(each.silent))
                table.add_row(f"{share:g}", str(seed), each.kind, *figures)
    Console().print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(rows, indent=1) + "\n")


def drive(
    url: Annotated[str, typer.Argument(help="gRPC, host and port.")],
    *,
    model: Annotated[str, typer.Option()] = "latte_shapes",
    mix: MixText = _MIX,
    rate: Annotated[float, typer.Option(min=0, help="Poisson arrivals a second; 0 for a closed loop.")] = 0.0,
    users: Annotated[int, typer.Option(min=1, help="Of the closed loop.")] = 4,
    count: Annotated[int, typer.Option(min=1)] = 40,
    deadline_ms: Annotated[int | None, typer.Option(min=1, help="Sent with every request.")] = None,
    patience: Annotated[float, typer.Option(min=1, help="Seconds after which an answer counts as missing.")] = 600.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Load a server that runs already, and print what it made of it as JSON; seconds, and requests a second."""
    parsed = Mix.parse(mix)
    if rate:
        asks = changed(poisson(parsed, rate, count, seed), deadline_ms=deadline_ms)
        answers = run_open(url, model, asks, patience_s=patience)
    else:
        asks = changed(at_once(parsed, count, seed), deadline_ms=deadline_ms)
        answers = run_closed(url, model, asks, users=users, patience_s=patience)
    found = measured(answers, None if deadline_ms is None else deadline_ms / 1e3)
    errors = dict(Counter(answer.error for answer in answers if answer.error))
    Console().print_json(json.dumps(without_nan({**found, "errors": errors})))
