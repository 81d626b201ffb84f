"""The command ``lemica inspect``: what a model folder needs in memory, and what its quantised weights change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lemica_backend.compile_command import describe_change
from lemica_backend.errors import LemicaError
from lemica_planner import PlannerError

_GIB = 2**30
_PROMPTS = "File with one prompt a line: load the weights, and say what quantising them changes in these videos."


def inspect(
    model_dir: Annotated[Path, typer.Argument(help="Model folder: the one with config.pbtxt.")],
    *,
    gpu_gib: Annotated[float, typer.Option(min=0.1, help="Memory of a GPU, in GiB.")] = 80.0,
    reserve_gib: Annotated[float, typer.Option(min=0, help="Of it for activations and decoding.")] = 10.0,
    prompts: Annotated[str | None, typer.Option(help=_PROMPTS, metavar="FILE")] = None,
) -> None:
    """Print parameters, bytes of weights, residual bytes of a request, and how many requests fit a GPU.

    Computed from the configuration files, on torch's meta device. Activations and decoding are not foreseen: they
    get what --reserve-gib says.
    """
    try:
        _show(model_dir, gpu_gib, reserve_gib)
        if prompts:
            _show_change(model_dir, prompts)
    except (LemicaError, PlannerError, OSError) as error:
        typer.echo(f"lemica inspect: {error}", err=True)
        raise typer.Exit(1) from error


def _show(model_dir: Path, gpu_gib: float, reserve_gib: float) -> None:
    from lemica_backend.footprint import footprint  # noqa: PLC0415 - loads torch

    need = footprint(model_dir)
    outline = need.outline
    shown = f"{outline.num_frames} frames of {outline.width} x {outline.height}" if outline else "a pipeline as it is"
    typer.echo(f"{model_dir}: {shown}, {need.dtype}")
    for part, (parameters, weight_bytes) in need.parts.items():
        where = ", on the GPU only while it is used" if part in need.waiting else ""
        typer.echo(f"  {part:<18} {parameters / 1e6:>12,.1f} M parameters {weight_bytes / _GIB:>9.2f} GiB{where}")
    total = "weights on the GPU" if need.waiting else "weights"
    typer.echo(f"  {total:<18} {'':>26} {need.weight_bytes / _GIB:>9.2f} GiB")
    if outline is None:
        typer.echo(
            "  one request at a time on each device; what a computed step leaves for the next shows when it runs:\n"
            "  metric lemica_cached_bytes"
        )
        return
    typer.echo(
        f"  one residual: {outline.tokens:,} tokens x {outline.channels:,} = {need.residual_bytes / 2**20:,.1f} MiB a "
        f"branch; {need.branches} branches\n"
        f"  a request holds {need.residual_bytes * need.branches / 2**20:,.1f} MiB for each computed step that its "
        f"operators look at:"
    )
    for operators, steps in (("residual (the paper's)", 1), ("residual-linear, -fitted, -split", 2)):
        fit = need.requests_in(gpu_gib * _GIB, reserve_gib * _GIB, steps)
        held = need.cache_bytes(steps) / _GIB
        typer.echo(
            f"    {operators:<34} {held:>8.3f} GiB; beside the weights, {gpu_gib:g} GiB less {reserve_gib:g} hold {fit}"
        )


def _show_change(model_dir: Path, prompts: str) -> None:
    from lemica_backend.blocks.offline import change_of_weights  # noqa: PLC0415 - loads torch
    from lemica_planner.prompt_sets import load_prompts  # noqa: PLC0415

    texts = [each.text for each in load_prompts(prompts)]
    typer.echo(describe_change(change_of_weights(model_dir, texts)))
