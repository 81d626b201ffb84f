"""Full-size models with random weights, through the engine and the adapters that serve: what a video costs.

``python -m benchmarks.real_sizes [MODEL ...] [--engine compile] [--rounds 5] [--output out/real_sizes.json]``
``python -m benchmarks.real_sizes --sizes``
``python -m benchmarks.real_sizes --tiny`` runs tiny models of the same kinds on any machine, to try the script.

Speed does not depend on the weights, so they are random, and are made on the GPU: no file is read or written but the
output. Of the text encoder, T5-XXL in all four, nothing runs: random states of its shape stand in for it, so c and the
memory are without it. Guidance is on, as the models' authors sample. One request at a time, budgets and engines in
turn, in an order drawn anew each round; medians. f is the time of a computed step, c = seconds - T f at full, and the
speed-up is compared with (T f + c) / (B f + c). FLOPs are those that `torch.utils.flop_counter` counts in the block
stack of a computed step, on the meta device; over f they are set against the GPU's dense peak in bfloat16. The last
line is the table as JSON. ``--sizes`` prints parameters and FLOPs only, and needs no GPU.
"""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.real_sizes.cases import CASES, Case, Place
from benchmarks.real_sizes.measure import EAGER, figures, measure, outlined

_TINY_STEPS, _TINY_BUDGETS = 4, (2,)
# dense matrix peaks in bfloat16, in TFLOP/s, as NVIDIA's data sheets state them
_PEAKS = {"H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "A10": 125.0, "L4": 121.0}


def main(
    models: Annotated[list[str] | None, typer.Argument(help=f"Some of {', '.join(CASES)}; by default all.")] = None,
    *,
    engine: Annotated[str, typer.Option(help="Beside eager: compile, aot, onnxruntime, openvino, tensorrt.")] = EAGER,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    device: Annotated[str, typer.Option(help="cuda, cuda:N or cpu.")] = "cuda",
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    peak_tflops: Annotated[float | None, typer.Option(help="Of the GPU; by default by its name.")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="Tiny models and few steps, on the CPU.")] = False,
    sizes: Annotated[bool, typer.Option("--sizes", help="Print parameters and FLOPs, and measure nothing.")] = False,
    output: Annotated[Path | None, typer.Option(help="Also write the table there, as JSON.")] = None,
) -> None:
    """Measure and print."""
    place = Place(getattr(torch, dtype), "cpu" if tiny else device, is_tiny=tiny)
    chosen = _chosen(models, tiny=tiny)
    if sizes:
        Console(width=100).print(_show_sizes(chosen, place))
        return
    if place.device != "cpu":
        if not torch.cuda.is_available():
            raise typer.BadParameter(
                f"--device is {device}, and there is no GPU here: take --tiny, --sizes or --device cpu"
            )
        torch.cuda.set_device(place.device)  # whose memory is asked for
    rows = []
    for name, case in chosen.items():
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(case, place, engine, rounds, Path(folder))
        peak = peak_tflops or _peak_of(place.device)
        rows += [figures(name, measured, turn, peak) for turn in sorted(measured.videos, reverse=True)]
        gc.collect()  # one model at a time on the GPU
        if place.device != "cpu":
            torch.cuda.empty_cache()
    Console(width=160).print(show(rows))
    result = {"machine": _machine(place.device), "dtype": dtype, "tiny": tiny, "rounds": rounds, "rows": rows}
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


def _chosen(models: Sequence[str] | None, *, tiny: bool) -> dict[str, Case]:
    unknown = sorted(set(models or ()) - set(CASES))
    if unknown:
        raise typer.BadParameter(f"there is no model {unknown[0]!r}; there are {', '.join(CASES)}")
    chosen = {name: CASES[name] for name in models or CASES}
    if not tiny:
        return chosen
    return {name: case._replace(steps=_TINY_STEPS, budgets=_TINY_BUDGETS) for name, case in chosen.items()}


def _show_sizes(chosen: Mapping[str, Case], place: Place) -> Table:
    table = Table("model", "transformer, M parameters", "a computed step, TFLOP", "a video at full, TFLOP")
    for name, case in chosen.items():
        found = outlined(case, place)
        step = found.flops / 1e12
        table.add_row(name, f"{found.parameters / 1e6:,.1f}", f"{step:,.4g}", f"{step * case.steps:,.4g}")
    return table


def _machine(device: str) -> str:
    return "CPU" if device == "cpu" else torch.cuda.get_device_name(device)


def _peak_of(device: str) -> float | None:
    name = _machine(device)
    return next((peak for known, peak in _PEAKS.items() if known in name), None)


def show(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table."""
    titles = "model", "engine", "B of T", "s a video", "f (s)", "c (s)", "speed-up", "ideal", "times eager", "peak GiB"
    table = Table(*titles, "TFLOP/s", "of peak")
    for row in rows:
        table.add_row(
            row["model"],
            row["engine"],
            f"{row['computed']} of {row['steps']}",
            f"{row['seconds']:.3g} ({row['seconds_lowest']:.3g} to {row['seconds_highest']:.3g})",
            f"{row['f_s']:.3g}",
            f"{row['c_s']:.3g}",
            f"{row['speed_up']:.2f}",
            f"{row['ideal']:.2f}",
            f"{row['times_eager']:.2f}",
            _or_nothing(row["peak_gib"], ".1f"),
            f"{row['tflops']:.3g}",
            _or_nothing(row["of_peak"], ".0%"),
        )
    return table


def _or_nothing(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


if __name__ == "__main__":
    typer.run(main)
