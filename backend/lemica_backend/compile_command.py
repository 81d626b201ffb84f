"""The command ``lemica compile``: build a block engine's artifact, before a server needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lemica_backend.errors import LemicaError
from lemica_planner import PlannerError

_ENGINES = "aot, onnxruntime, openvino or tensorrt; by default what model.json names."
_PRECISIONS = "dtype, bfloat16 for openvino, or int8 for onnxruntime; by default what model.json names."
_PROMPTS = "File with one prompt a line: generate all of them with both engines, and say what this one changes."


def compile(
    model_dir: Annotated[Path, typer.Argument(help="Model folder: the one with config.pbtxt.")],
    *,
    engine: Annotated[str | None, typer.Option(help=_ENGINES, metavar="ENGINE")] = None,
    precision: Annotated[str | None, typer.Option(help=_PRECISIONS, metavar="PRECISION")] = None,
    force: Annotated[bool, typer.Option(help="Build again what is there.")] = False,
    prompts: Annotated[str | None, typer.Option(help=_PROMPTS, metavar="FILE")] = None,
) -> None:
    """Build the artifact that runs a model's block stack, check it against torch, and say what it serves.

    It lies beside model.json, in the folder that blocks.artifacts names, and is found by what it was built from: the
    weights, sizes, precision, engine and versions.
    """
    from lemica_backend.blocks.offline import build_offline, change_offline  # noqa: PLC0415 - loads torch
    from lemica_planner.prompt_sets import load_prompts  # noqa: PLC0415

    try:
        texts = [each.text for each in load_prompts(prompts)] if prompts else []
        name, built = build_offline(model_dir, engine, precision, force=force)
        typer.echo(describe(name, built))
        if texts:
            typer.echo(describe_change(change_offline(model_dir, engine, precision, texts)))
    except (LemicaError, PlannerError, OSError) as error:
        typer.echo(f"lemica compile: {error}", err=True)
        raise typer.Exit(1) from error


def describe(name: str, built: Any) -> str:
    """Return what an operator must know of an artifact."""
    served = ", ".join(f"{axis} {low} to {high}" for axis, (low, high) in built.place.ranges.items())
    kind = str(built.place.dtype).removeprefix("torch.")
    rounded = {"bfloat16": " with blocks in bfloat16", "int8": " with matrices in int8"}
    kind += rounded.get(built.place.precision, "")
    if built.artifact is None:
        return f"{name} compiles when the model loads; there is nothing to build ({served})"
    size = sum(each.stat().st_size for each in built.artifact.folder.iterdir()) / 2**20
    how = f"built in {built.seconds:.0f} s" if built.is_new else "is there already"
    off = built.artifact.agreement
    how_far = "not run here" if off is None else f"{off:.1e} of the largest hidden state"
    return (
        f"{built.artifact.folder}: {how}, {size:.1f} MiB\n"
        f"  {name}, {kind}: {served}\n"
        f"  largest difference from torch's eager mode: {how_far}"
    )


def describe_change(change: Any) -> str:
    """Return what an engine or quantised weights cost in quality, beside what skipping steps does."""
    costs = ", ".join(f"{name} {error:.2g}" for name, error in change.plan.items())
    return (
        f"  whole videos against plain weights run eagerly, every step computed, {change.metric}: {change.mean:.2g}, "
        f"at worst {change.worst:.2g} of {change.prompts}\n"
        f"  what skipping steps costs by the plan: {costs or 'no plan says'}"
    )
