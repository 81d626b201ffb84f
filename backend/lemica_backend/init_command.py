"""The command ``lemica init``: a model folder for a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lemica_backend.errors import LemicaError

if TYPE_CHECKING:
    from lemica_backend.model_folder import MadeFolder


def init(
    source: Annotated[str, typer.Argument(help="A folder in the layout of diffusers, or an id on the hub.")],
    *,
    repository: Annotated[Path, typer.Option(help="Where the model's folder goes.", metavar="DIR")] = Path(
        "model_repository"
    ),
    name: Annotated[str | None, typer.Option(help="Of the model; by default the last part of SOURCE.")] = None,
) -> None:
    """Write the model folder that serves a pipeline, and say what to do next.

    Family, size, steps and guidance come from the pipeline. Weights stay where they are; with an id on the hub, only
    its configuration is downloaded now, and the server downloads the weights when it starts.
    """
    from lemica_backend.model_folder import make_folder  # noqa: PLC0415 - loads torch

    try:
        made = make_folder(source, repository, name)
    except LemicaError as error:
        typer.echo(f"lemica init: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(_next_steps(made, repository) if made.outline else _next_steps_as_it_is(made, repository))


def _next_steps(made: MadeFolder, repository: Path) -> str:
    size, defaults = made.outline, made.config.defaults
    assert size is not None
    each = ' such as\n     {"prompt": "the cat yawns", "image": "cat.png"}' if size.takes_image else ""
    file = "prompts.jsonl" if size.takes_image else "prompts.txt"
    return (
        f"{made.path}: {made.family}, {size.num_frames} frames of {size.width} x {size.height}, "
        f"{defaults.num_inference_steps} steps, guidance {defaults.guidance_scale:g}, {made.config.dtype}\n"
        "It serves budget=full as it is. Next:\n"
        f"  1. look over {made.path / '1' / 'model.json'}: size, dtype, device, limits{_on_cpu(made)}\n"
        f"  2. lemica inspect {made.path}                  what it needs in memory\n"
        f"  3. write prompts like your users' into {file}, 2 to 10 lines{each}\n"
        f"  4. lemica-planner calibrate {made.path} --prompts {file} -o graph.npz \\\n"
        "         --operators residual-split --metric frames_l2      long; resumes\n"
        f"  5. lemica-planner apply graph.npz {made.path}\n{_published(made)}"
        f"  6. lemica serve --model-repository {repository}, and lemica generate PROMPT --model {made.path.name}"
    )


def _next_steps_as_it_is(made: MadeFolder, repository: Path) -> str:
    defaults = made.config.defaults
    return (
        f"{made.path}: a pipeline without an adapter, run as it is, one request at a time; "
        f"{defaults.num_inference_steps} steps, guidance {defaults.guidance_scale:g}, {made.config.dtype}\n"
        "When it loads it proves that the step cache fits, or says why not. It cannot be calibrated. Next:\n"
        f"  1. look over {made.path / '1' / 'model.json'}: size, options, dtype, device{_on_cpu(made)}\n"
        f"  2. lemica inspect {made.path}                  what it needs in memory\n"
        f"  3. lemica-planner import LISTS.json -o plan.json, and lemica-planner apply plan.json {made.path}\n"
        f"{_published(made)}"
        f"  4. lemica serve --model-repository {repository}, and lemica generate PROMPT --model {made.path.name}"
    )


def _published(made: MadeFolder) -> str:
    """Return how to do with steps that LeMiCa's authors published, where they have some for such models."""
    if not made.published:
        return ""
    names, first = " or ".join(made.published), made.published[0]
    return (
        f"     or, if it is {names}, without a measurement here:\n"
        f"     lemica-planner apply {made.path} --published {first}\n"
    )


def _on_cpu(made: MadeFolder) -> str:
    """Return what to change where there is no GPU: processors compute in half precision slowly, if at all."""
    return "" if made.config.dtype == "float32" else "; for a CPU, set dtype to float32"
