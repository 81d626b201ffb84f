"""What a diffusers pipeline tells about a generation, as fields of a provenance. Needs neither torch nor diffusers.

A fact that a pipeline does not tell for certain is left out, and so is not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from lemica_planner.provenance import Provenance

__all__ = ["generation_facts", "scheduler_facts"]


class _Grid(NamedTuple):
    """Latent cells."""

    frames: int
    height: int
    width: int


def scheduler_facts(scheduler: Any) -> dict[str, Any]:
    """Return the class name and the parameters of a diffusers scheduler."""
    return {"scheduler": type(scheduler).__name__, "scheduler_config": dict(scheduler.config)}


def generation_facts(pipeline: Any, latents: Sequence[int], planned: Provenance) -> dict[str, Any]:
    """Return what a running pipeline serves, in the fields and units of a provenance.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        Inside its call, so that its attributes are those of this generation.
    latents : sequence of int
        Shape of what the transformer gets: (B, C, F, h, w) or (B, F, C, h, w); of others the size is not told.
    planned : Provenance
        A frame number or size that has the same latents as the planned one is told as that one: autoencoders round.

    Returns
    -------
    dict of str to (float or int)
        Of ``guidance_scale``, ``num_frames``, ``height`` and ``width`` those that are known; sizes in pixels.
    """
    guidance_scale = getattr(pipeline, "guidance_scale", None)
    facts = {"guidance_scale": guidance_scale} if isinstance(guidance_scale, int | float) else {}
    return facts | _size_facts(pipeline, latents, planned)


def _size_facts(pipeline: Any, latents: Sequence[int], planned: Provenance) -> dict[str, Any]:
    grid = _grid(latents, getattr(pipeline.transformer.config, "in_channels", None))
    if grid is None:
        return {}
    facts: dict[str, Any] = {}
    if (cell := getattr(pipeline, "vae_scale_factor_spatial", getattr(pipeline, "vae_scale_factor", None))) is not None:
        facts["height"] = _pixels(grid.height, cell, planned.height)
        facts["width"] = _pixels(grid.width, cell, planned.width)
    if (span := _frames_a_cell(pipeline)) is not None:
        facts["num_frames"] = _frames(grid.frames, span, planned.num_frames)
    return facts


def _grid(latents: Sequence[int], channels: int | None) -> _Grid | None:
    """Tell frames from channels, which pipelines order differently; None where that cannot be told."""
    if len(latents) != 5 or channels not in latents[1:3]:
        return None
    return _Grid(latents[2] if latents[1] == channels else latents[1], *latents[3:])


def _frames_a_cell(pipeline: Any) -> int | None:
    config = pipeline.transformer.config
    if (getattr(config, "patch_size_t", None) or 1) > 1:
        return None  # CogVideoX 1.5 pads the frames to whole patches
    if getattr(config, "video_length", None) is not None:
        return 1  # Latte: the autoencoder is one of images
    return getattr(pipeline, "vae_scale_factor_temporal", None)


def _pixels(cells: int, cell: int, planned: int | None) -> int:
    return planned if planned is not None and planned // cell == cells else cells * cell


def _frames(cells: int, span: int, planned: int | None) -> int:
    # video autoencoders keep the first frame alone: ceil(n / span) cells for n frames
    return planned if planned is not None and -(-planned // span) == cells else (cells - 1) * span + 1
