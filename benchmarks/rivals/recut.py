"""Latte with one list of blocks: a block is a pair, spatial then temporal, that hands on what it got in layout.

Caches that keep the residual of a block list look for the first and the last block. In diffusers' Latte these are the
first spatial and the last temporal one, whose tensors have other shapes, and the blocks do not run in the order of the
lists. Pairs put that right without a change of the maths: all of it that is not a block is the engine's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers import CacheMixin
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from torch import Tensor, nn

from benchmarks.rivals.calibration import guide
from benchmarks.rivals.rival import OpenLatte, Start, begin_job
from benchmarks.rivals.stock import noise_levels

Install = Callable[[Any], object]  # of a PairedLatte; diffusers, half typed, adds the methods


class Conditions(NamedTuple):
    """What every pair gets beside the hidden states.

    Attributes
    ----------
    text : Tensor, shape (R * frames, tokens, width)
    by_frame, by_patch : Tensor, shapes (R * frames, 6 width) and (R * patches, 6 width)
        What the timestep says to the blocks.
    rows : int
    """

    text: Tensor
    by_frame: Tensor
    by_patch: Tensor
    rows: int


class Pair(nn.Module):
    """A spatial and a temporal block of Latte; the first pair also adds the positions of the frames."""

    def __init__(self, spatial: nn.Module, temporal: nn.Module, positions: Tensor | None) -> None:
        super().__init__()
        self.spatial, self.temporal = spatial, temporal
        self._positions = positions

    def forward(self, hidden_states: Tensor, conditions: Conditions) -> Tensor:
        """Take and return hidden states of shape (R * frames, patches, width)."""
        text, by_frame, by_patch, rows = conditions
        hidden = self.spatial(hidden_states, None, text, None, by_frame, None, None)
        hidden = _swap(hidden, rows)
        if self._positions is not None:
            hidden = hidden + self._positions.to(hidden.dtype)
        hidden = self.temporal(hidden, None, None, None, by_patch, None, None)
        return _swap(hidden, rows)


TransformerBlockRegistry.register(
    Pair, TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=None)
)


class PairedLatte(nn.Module, CacheMixin):  # type: ignore[misc]  # diffusers is half typed
    """A model's blocks as one list, for caches that need one; shares the weights, holds no state of its own."""

    def __init__(self, model: OpenLatte) -> None:
        super().__init__()
        net = model.net
        pairs = zip(net.transformer_blocks, net.temporal_transformer_blocks, strict=True)
        self.transformer_blocks = nn.ModuleList(
            Pair(spatial, temporal, None if index else net.temp_pos_embed)
            for index, (spatial, temporal) in enumerate(pairs)
        )
        self._model = model

    def forward(self, latents: Tensor, timesteps: Tensor, texts: Tensor) -> Tensor:
        """Return the model's output for latents (R, C, F, h, w) at timesteps (R,), with texts (R, tokens, width)."""
        stem = self._model.stem(latents, timesteps)
        rows, frames, patches, _ = stem.hidden.shape
        modulation = self._model.modulation(stem)
        conditions = Conditions(
            texts.repeat_interleave(frames, dim=0),
            modulation.repeat_interleave(frames, dim=0),
            modulation.repeat_interleave(patches, dim=0),
            rows,
        )
        hidden = stem.hidden.flatten(0, 1)
        for block in self.transformer_blocks:
            hidden = block(hidden, conditions)
        output: Tensor = self._model.head(hidden.unflatten(0, (rows, frames)), stem)
        return output


def _swap(hidden: Tensor, rows: int) -> Tensor:
    """Turn (R * a, b, width) into (R * b, a, width)."""
    swapped: Tensor = hidden.unflatten(0, (rows, -1)).transpose(1, 2).flatten(0, 1)
    return swapped


@torch.inference_mode()
def run_recut(begin: Start, install: Install) -> Tensor:
    """Denoise with a freshly cut model, into which `install` puts a cache; it dies with the call."""
    net: Any = PairedLatte(begin.model)
    kept: Any = install(net)  # some caches live only as long as their handle
    job = begin_job(begin, begin.planned.computed, {})
    texts, steps = torch.stack(list(job.texts.values())), begin.planned.num_inference_steps
    for step, (timestep, sigma) in enumerate(zip(job.scheduler.timesteps, noise_levels(begin), strict=True)):
        latents = job.latents.expand(len(texts), *job.latents.shape)
        with net.cache_context("cond_uncond", step_index=step, sigma=sigma, num_inference_steps=steps):
            output = net(latents, timestep.expand(len(texts)), texts)
        guided = guide(output, begin.planned.guidance_scale)
        job.latents = job.scheduler.step(guided[None], timestep, job.latents[None], return_dict=False)[0][0]
    del kept
    return job.latents


def run_bare(begin: Start) -> Tensor:
    """Denoise with the re-cut model and no cache."""
    return run_recut(begin, lambda _net: None)
