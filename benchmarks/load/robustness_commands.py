"""The commands that try to break a server; each starts one of its own with a tiny model, and ends in one JSON."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.load.robustness.disconnects import vanish
from benchmarks.load.robustness.health import metric, settled
from benchmarks.load.robustness.kills import kill_workers
from benchmarks.load.robustness.malformed import send_malformed, unanswered
from benchmarks.load.robustness.memory import FEWEST, growth, sampled
from benchmarks.load.robustness.soak import Soak
from benchmarks.load.robustness.wire import Target
from benchmarks.load.servers import LoadServer, serving, temporary_folder
from lemica_planner.atomic import write_text

_MODEL, _STREAM = "model", "model_stream"
_ANSWERED_S = 1.0  # in which whoever is in flight on a lost worker has to hear of it

ModelFolder = Annotated[
    Path | None, typer.Option("--model", help="A model folder with a plan; by default a tiny model of random weights.")
]
Seed = Annotated[int, typer.Option(min=0)]
Output = Annotated[Path, typer.Option(help="The JSON.")]
Attack = Callable[[LoadServer, Target], Awaitable[dict[str, Any]]]


def malformed(
    *,
    count: Annotated[int, typer.Option(min=1)] = 10_000,
    model: ModelFolder = None,
    seed: Seed = 0,
    output: Output = Path("out/malformed.json"),
) -> None:
    """Send random and broken requests over HTTP, gRPC and streams: each has to be answered."""

    async def attack(_: LoadServer, target: Target) -> dict[str, Any]:
        found = await send_malformed(target, count, seed=seed)
        kinds = {kind: dict(sorted(each.items())) for kind, each in sorted(found.counts.items())}
        return {"requests": count, "unanswered": unanswered(found), "outcomes": kinds}

    _attack(attack, model, output)


def disconnects(
    *,
    count: Annotated[int, typer.Option(min=1)] = 500,
    model: ModelFolder = None,
    seed: Seed = 0,
    output: Output = Path("out/disconnects.json"),
) -> None:
    """Reset connections in the middle of requests: HTTP, server-sent events, gRPC unary and streams."""

    async def attack(_: LoadServer, target: Target) -> dict[str, Any]:
        found = await vanish(target, count, seed=seed)
        return {"requests": count, "outcomes": {kind: dict(each) for kind, each in sorted(found.counts.items())}}

    _attack(attack, model, output)


def kills(
    *,
    count: Annotated[int, typer.Option(min=1)] = 20,
    model: ModelFolder = None,
    seed: Seed = 0,
    output: Output = Path("out/kills.json"),
) -> None:
    """Kill the worker under load, again and again: every request has to be answered, and none twice."""
    _attack(lambda server, target: kill_workers(server, target, count, seed=seed), model, output)


def soak(
    *,
    minutes: Annotated[float, typer.Option(min=0.1)] = 30.0,
    kill_every: Annotated[float, typer.Option(min=1, help="Seconds between killed workers, on average.")] = 180.0,
    model: ModelFolder = None,
    seed: Seed = 0,
    output: Output = Path("out/soak.json"),
) -> None:
    """Let valid requests, malformed ones, vanishing clients and killed workers run side by side for long."""

    async def attack(server: LoadServer, target: Target) -> dict[str, Any]:
        return await Soak(server, target, seed=seed).run(60 * minutes, kill_every_s=kill_every)

    _attack(attack, model, output, every_s=min(5.0, minutes))


def _attack(attack: Attack, model: Path | None, output: Path, every_s: float = 0.5) -> None:
    with _target(model, output.with_suffix(".server.log")) as (server, target):
        found = asyncio.run(_measured(attack, server, target, every_s))
    write_text(output, json.dumps(found, indent=1) + "\n")
    Console().print_json(json.dumps({name: value for name, value in found.items() if name != "memory_mib"}))
    failures = failures_of(found)
    if failures:
        raise ValueError(f"the server did not stand it: {'; '.join(failures)} (the log is {server.log})")


async def _measured(attack: Attack, server: LoadServer, target: Target, every_s: float) -> dict[str, Any]:
    await settled(target, server.metrics_url)  # warm
    started = time.monotonic()
    async with sampled(server.resident_bytes, every_s) as samples:
        found = await attack(server, target)
    seconds = time.monotonic() - started
    samples = found.pop("samples_bytes", samples)
    return {
        **found,
        "seconds": round(seconds, 1),
        **await settled(target, server.metrics_url),
        "is_alive": server.is_alive,
        "worker_restarts": metric(server.metrics_url, "lemica_worker_restarts_total"),
        "memory": _memory(samples),
        "memory_mib": [round(sample / 2**20, 2) for sample in samples],
    }


def _memory(samples: Sequence[int]) -> dict[str, Any] | None:
    """Return whether it grew; None where that cannot be said after so short a run."""
    if len(samples) < FEWEST:
        return None
    memory = growth(samples)
    return {**asdict(memory), "growth_mib": memory.growth_mib, "is_noise": memory.is_noise}


def failures_of(found: Mapping[str, Any]) -> list[str]:
    """Return what is not as it has to be, in words."""
    outcomes, memory = found["outcomes"], found["memory"]
    late_s = max(found.get("last_failure_s") or [0.0])
    failures = {
        "tritonserver died": not found["is_alive"],
        "it serves no more": not found["serves_afterwards"],
        f"it did not let go of {found['left_over']}": bool(found["left_over"]),
        "requests were not answered": bool(found.get("unanswered") or outcomes.get("unanswered")),
        "malformed requests were not answered": bool(found.get("malformed_unanswered")),
        "requests were answered twice": bool(outcomes.get("answered_twice")),
        "valid requests failed with more than UNAVAILABLE": bool(outcomes.get("failed")),
        f"requests on a killed worker were answered after {late_s:.1f} s only": late_s > _ANSWERED_S,
        "killed workers were not replaced": found.get("kills", 0) > found["worker_restarts"],
        f"the run was too short to judge memory ({FEWEST} samples)": memory is None,
        f"memory grew by {memory['growth_mib'] if memory else 0:.1f} MiB": bool(memory and not memory["is_noise"]),
    }
    return [words for words, is_so in failures.items() if is_so]


@contextmanager
def _target(model: Path | None, log: Path) -> Iterator[tuple[LoadServer, Target]]:
    """Serve a model and its streaming twin."""
    with temporary_folder() as folder:
        if model is None:
            import_module("tests.server.repository").make_planned_model(folder / _MODEL)
        else:
            shutil.copytree(model, folder / _MODEL)
        import_module("tests.server.repository").make_stream(folder / _STREAM, _MODEL)
        with serving(folder, log=log) as server:
            yield server, Target(server.http_url, server.grpc_url, _MODEL, _STREAM)
