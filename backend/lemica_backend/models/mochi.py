"""Mochi 1 (Genmo, 2024): diffusers' MochiPipeline cut into stem, block stack and head.

The blocks carry two streams, the video's and the text's. The head sees the video's only, so its residual is all that a
skipped step needs. Sigmas and timesteps run upwards, from noise at 0 to the video at 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import MochiPipeline
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from torch import Tensor

from lemica_backend.blocks.stack import BlockStack, Range
from lemica_backend.errors import InvalidRequestError
from lemica_backend.models.base import Stem, Text
from lemica_backend.models.mochi_stack import MochiStack
from lemica_backend.models.pipeline_model import PipelineModel, Shape, stack_texts, unpatch
from lemica_backend.types import Branch

MAX_TOKENS = 256  # MochiPipeline.__call__
_THRESHOLD_NOISE = 0.025  # MochiPipeline.__call__


class MochiModel(PipelineModel):
    """One loaded Mochi; holds no state of any request."""

    family = "mochi"
    pipeline_class = MochiPipeline
    guides_in_float32 = True
    makes_schedule = True

    def _default_shape(self) -> Shape:
        return Shape(self._pipeline.default_height, self._pipeline.default_width, 19)

    def _grain(self) -> tuple[int, int]:
        pipeline = self._pipeline
        return pipeline.vae_spatial_scale_factor * self._net.config.patch_size, pipeline.vae_temporal_scale_factor

    def _prepare(self) -> None:
        side = self._net.config.patch_size
        frames, height, width = self.initial_noise(0).shape[1:]
        self._patch = 1, side, side
        self._grid = frames, height // side, width // side
        if self._device.type == "meta":  # where the tables below cannot be made
            return
        self._rope = self._net.rope(self._net.pos_frequencies, *self._grid, device=self._device, dtype=torch.float32)

    def _latents_dtype(self) -> torch.dtype:
        return self._dtype

    def encode_text(
        self, prompt: str, negative_prompt: str, branches: Sequence[Branch], guidance_scale: float = 1.0
    ) -> dict[Branch, Text]:
        """Encode as the pipeline does: padded to 256 tokens, with a mask.

        Raises
        ------
        InvalidRequestError
            If a prompt has more tokens than the model was made for (the pipeline would cut it silently).
        """
        self._require_tokens(MAX_TOKENS, prompt=prompt, negative_prompt=negative_prompt)
        cond, cond_mask, uncond, uncond_mask = self._pipeline.encode_prompt(
            prompt, negative_prompt, "uncond" in branches, max_sequence_length=MAX_TOKENS, device=self._device
        )
        encoded = {"cond": (cond, cond_mask), "uncond": (uncond, uncond_mask)}
        return {branch: (encoded[branch][0][0], encoded[branch][1][0]) for branch in branches}

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        if num_inference_steps < 2:
            raise InvalidRequestError("num_inference_steps is 1; this model's schedule has at least 2")
        sigmas = linear_quadratic_schedule(num_inference_steps, _THRESHOLD_NOISE)
        scheduler.set_timesteps(sigmas=np.array(sigmas), device=self._device)

    def stem(self, latents: Tensor, timesteps: Tensor, texts: Sequence[Text]) -> Stem:
        """Cut the frames into patches, and embed timesteps and pooled texts together."""
        states, mask = stack_texts(texts)
        embedding, text = self._net.time_embed(timesteps.to(self._dtype), states, mask, hidden_dtype=self._dtype)
        images = latents.transpose(1, 2).flatten(0, 1)  # (R * F, C, h, w)
        hidden = self._net.patch_embed(images).unflatten(0, (len(latents), -1)).flatten(1, 2)
        return Stem(hidden, (embedding, text))

    def blocks(self, stem: Stem, texts: Sequence[Text]) -> Tensor:
        """Run the blocks on both streams, with the padding of texts left out, and return the video's."""
        embedding, text = stem.conditions
        _, mask = stack_texts(texts)
        return self.stacks[0](stem.hidden, text, mask.bool(), embedding, *self._rope)

    def _make_stacks(self) -> Sequence[BlockStack]:
        return (MochiStack(self._net, self._rope, Range(MAX_TOKENS, MAX_TOKENS), self._dtype),)

    def head(self, hidden: Tensor, stem: Stem) -> Tensor:
        """Modulate, project and put the patches together."""
        patches = self._net.proj_out(self._net.norm_out(hidden, stem.conditions[0]))
        return unpatch(patches, self._grid, self._patch, channels_last=True)

    def _decode(self, latents: Tensor, seed: int) -> Tensor:
        vae = self._pipeline.vae
        mean, std = vae.config.latents_mean, vae.config.latents_std
        if mean is None or std is None:
            latents = latents / vae.config.scaling_factor
        else:
            mean, std = (torch.tensor(each).view(1, -1, 1, 1, 1).to(latents) for each in (mean, std))
            latents = latents * std / vae.config.scaling_factor + mean
        video: Tensor = vae.decode(latents, return_dict=False)[0]
        return video
