"""What MagCache and TeaCache must know of a model, measured on the samples that the plans were calibrated on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.rivals.rival import OpenLatte, Start, begin_job, start
from lemica_backend.config import ModelConfig
from lemica_backend.models.base import Stem
from lemica_planner import Sample

POLYNOMIAL_DEGREE = 4


class Facts(NamedTuple):
    """What the two rules need.

    Attributes
    ----------
    mag_ratios : tuple of float
        How much longer the residual of a step is than that of the step before; 1 at the first.
    polynomial : tuple of float
        Coefficients, highest power first, that turn the change of the modulated input into that of the output.
    """

    mag_ratios: tuple[float, ...]
    polynomial: tuple[float, ...]


class _Step(NamedTuple):
    modulated: Tensor
    residual: Tensor
    output: Tensor


def calibrate(model: OpenLatte, config: ModelConfig, samples: Sequence[Sample]) -> Facts:
    """Run the samples in full; ratios are means over them, the polynomial fits all of their steps."""
    runs = [
        list(changes(start(model, config, sample.prompt, sample.seed))) for sample in tqdm(samples, desc="calibration")
    ]
    table = np.asarray(runs)  # (samples, steps - 1, 3)
    ratios = table[:, :, 0].mean(axis=0)
    polynomial = np.polyfit(table[:, :, 1].ravel(), table[:, :, 2].ravel(), POLYNOMIAL_DEGREE)
    return Facts((1.0, *ratios.tolist()), tuple(polynomial.tolist()))


def changes(begin: Start) -> Iterator[tuple[float, float, float]]:
    """Yield for every step but the first: ratio of residuals, change of the modulated input, change of the output."""
    steps = _trajectory(begin)
    before = next(steps)
    for now in steps:
        yield (
            magnitude_ratio(now.residual, before.residual),
            relative_change(now.modulated, before.modulated),
            relative_change(now.output, before.output),
        )
        before = now


def magnitude_ratio(now: Tensor, before: Tensor) -> float:
    """Return the mean over tokens of the ratio of their residuals' lengths (MagCache, arXiv 2506.09045)."""
    lengths = [torch.linalg.vector_norm(values.float(), dim=-1) for values in (now, before)]
    return float((lengths[0] / (lengths[1] + 1e-8)).mean())


def relative_change(now: Tensor, before: Tensor) -> float:
    """Return the relative L1 change (TeaCache, arXiv 2411.19108)."""
    return float((now - before).abs().mean() / before.abs().mean())


def modulated_input(model: OpenLatte, stem: Stem) -> Tensor:
    """Return what enters the first attention: the normalised input, scaled and shifted as the timestep says."""
    block = model.net.transformer_blocks[0]
    table = block.scale_shift_table + model.modulation(stem).unflatten(-1, (6, -1))  # (R, 6, width)
    shift, scale = table[:, 0, None, None], table[:, 1, None, None]
    modulated: Tensor = block.norm1(stem.hidden) * (1 + scale) + shift
    return modulated


@torch.inference_mode()
def _trajectory(begin: Start) -> Iterator[_Step]:
    """Run every step with the engine's model, cut in the open."""
    model, job = begin.model, begin_job(begin, begin.planned.computed, {})
    texts = list(job.texts.values())
    for timestep in job.scheduler.timesteps:
        rows = len(texts)
        stem = model.stem(job.latents.expand(rows, *job.latents.shape), timestep.expand(rows))
        hidden = model.blocks(stem, texts)
        output = model.head(hidden, stem)
        yield _Step(modulated_input(model, stem), hidden - stem.hidden, output)
        guided = guide(output, begin.planned.guidance_scale)
        job.latents = job.scheduler.step(guided[None], timestep, job.latents[None], return_dict=False)[0][0]


def guide(output: Tensor, guidance_scale: float) -> Tensor:
    """Combine the branches, uncond first, or cond alone."""
    return output[0] if len(output) == 1 else output[0] + guidance_scale * (output[1] - output[0])
