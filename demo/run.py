"""One run of the demo, from the model repository to the page."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
import tritonclient.grpc as triton
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from demo.graph_picture import draw_graph
from demo.lpips_weights import ensure_weights
from demo.measure import Schedule, choose_budgets, judge_all, read_prompts, send_all, warm_up
from demo.page import budget_colours, named_rows, write_page
from demo.records import Facts, Record
from demo.summary import Summary, summarise
from demo.table import describe_noise, make_table
from lemica_backend.triton_server import TritonServer
from lemica_client import Client
from lemica_planner import CachePlan, ErrorGraph
from lemica_planner.graph_file import load_graph

READY_TIMEOUT_S = 300.0

console = Console(highlight=False)


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Options:
    """What to run; the fields are the options of ``python -m demo``."""

    repository: Path
    model: str
    url: str | None
    prompts: Path
    output: Path
    repeats: int
    numbers: int
    seed: int


def run(options: Options) -> Path:
    """Serve, measure, and write the page; return its path. The server is stopped however this ends."""
    prompts = read_prompts(options.prompts)
    ensure_weights()  # first, so that a machine without them finds out before anything was measured
    options.output.mkdir(parents=True, exist_ok=True)
    with _served(options) as address, Client(address, model=options.model) as client:
        client.wait_until_ready(READY_TIMEOUT_S)
        record = _measure(client, prompts, options, server=_server_name(address))
    console.print()
    summary = summarise(record)
    print_table(summary)
    page = write_page(record, options.output, graph_svg=_draw(summary, options))
    console.print(f"\nThe videos and the figures are on this page: [bold]{page.resolve()}[/]", soft_wrap=True)
    return page


def print_table(summary: Summary) -> None:
    """Print the table, and below it whether its times are to be trusted."""
    console.print(make_table(summary))
    if noise := describe_noise(summary):
        console.print(f"\n[bold yellow]{noise}[/]", soft_wrap=True)


@contextmanager
def _served(options: Options) -> Iterator[str]:
    """Yield the gRPC address of the server: the one that runs already, or one started for this run."""
    if options.url is not None:
        yield options.url.removeprefix("grpc://")
        return
    log = options.output / "server.log"
    log.unlink(missing_ok=True)
    console.print(f"Starting a Triton server for {options.repository} (its log: {log}) ...")
    with TritonServer(options.repository, http_port=0, grpc_port=0, log=log) as server:
        server.wait_ready(READY_TIMEOUT_S)
        console.print(f"The server answers at {server.grpc_url}.")
        yield server.grpc_url
    console.print("The server is stopped.")


def _measure(client: Client, prompts: tuple[str, ...], options: Options, *, server: str) -> Record:
    served = client.plan()
    if served is None:
        raise DemoError(
            f"The model {options.model} is served without a cache plan, so there is nothing to compare. "
            "`lemica-planner calibrate` and `lemica-planner apply` make one."
        )
    console.print(f"Warming up {options.model} ...")
    plan = CachePlan.from_json(json.dumps(served))
    num_steps = warm_up(client, prompts[0], options.seed)
    budgets = choose_budgets(plan.budgets, num_steps, numbers=options.numbers)
    schedule = Schedule(prompts, budgets, options.seed, options.repeats)
    console.print(f"Sending {len(prompts)} prompts at the budgets {', '.join(budgets)}; {options.repeats} rounds.")
    with _progress() as progress:
        measurements, videos = send_all(client, schedule, progress)
        clips = judge_all(videos, schedule, options.output, progress)
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = Facts(options.model, server, _machine_name(), date, plan.plan_id, options.repeats)
    return Record(facts, tuple(measurements), tuple(clips))


def _progress() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("elapsed,"), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, TextColumn("left"), console=console)


def _draw(summary: Summary, options: Options) -> str | None:
    """Draw the graph that the plan was made from, where it lies beside the model."""
    path = options.repository / options.model / "calibration" / "graph.npz"
    if not path.is_file():
        console.print(f"There is no {path}, so the page comes without the picture of the error graph.")
        return None
    known = load_graph(path)
    graph = known if isinstance(known, ErrorGraph) else known.to_error_graph()
    if graph.num_steps != summary.num_steps:
        raise DemoError(f"{path} is a graph of {graph.num_steps} steps, but the model takes {summary.num_steps}.")
    paths = {row.budget: row.steps for row in named_rows(summary)}
    return draw_graph(graph.weights, paths, budget_colours(summary))


def _server_name(address: str) -> str:
    with triton.InferenceServerClient(address) as server:
        metadata = server.get_server_metadata()
    return f"{metadata.name} {metadata.version}"


def _machine_name() -> str:
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = (line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line)
        processor = next(models, processor)
    name = f"{processor}, {os.cpu_count()} cores"
    return f"{name}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else name
