"""LTX-Video (arXiv 2501.00103): diffusers' LTXPipeline cut into stem, block stack and head.

The pipeline holds its latents as tokens, and so does this: shape (F * h * w, C).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import LTXPipeline
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift, rescale_noise_cfg
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from lemica_backend.blocks.stack import BlockStack, Range
from lemica_backend.models.base import Stem, Text
from lemica_backend.models.ltx_stack import LtxStack
from lemica_backend.models.pipeline_model import Options, PipelineModel, Shape, stack_texts
from lemica_backend.types import Branch

MAX_TOKENS = 128  # LTXPipeline.__call__
_MASKED = -10_000.0  # added to the attention score of a padded token
_SHIFT = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}


class LtxOptions(Options):
    """What LTXPipeline takes beside a request.

    Attributes
    ----------
    frame_rate : int
        Frames per second of the video that the transformer sees; the file's are ``fps``.
    decode_timestep : float
        Of an autoencoder that takes one.
    decode_noise_scale : float or None
        The share of noise in what such an autoencoder gets; None takes `decode_timestep`.
    guidance_rescale : float
        How far the guided output takes the spread of the conditional one (arXiv 2305.08891, section 3.4); 0 for not.
    """

    frame_rate: int = 25
    decode_timestep: float = 0.0
    decode_noise_scale: float | None = None
    guidance_rescale: float = 0.0


class LtxModel(PipelineModel):
    """One loaded LTX-Video; holds no state of any request."""

    family = "ltx"
    pipeline_class = LTXPipeline
    options_class = LtxOptions
    guides_in_float32 = True
    makes_schedule = True
    stem_sees_text = False

    def _default_shape(self) -> Shape:
        return Shape(512, 704, 161)

    def _grain(self) -> tuple[int, int]:
        return 32, self._pipeline.vae_temporal_compression_ratio

    def _prepare(self) -> None:
        pipeline, shape = self._pipeline, self.shape
        cell, frames = pipeline.vae_spatial_compression_ratio, pipeline.vae_temporal_compression_ratio
        for name in ("decode_timestep", "decode_noise_scale"):
            if getattr(self._options, name) and not pipeline.vae.config.timestep_conditioning:
                raise ValueError(f"model.json, options.{name}: the autoencoder takes no timestep")
        self._grid = (shape.num_frames - 1) // frames + 1, shape.height // cell, shape.width // cell
        scale = frames / self._options.frame_rate, cell, cell
        self._rope = self._net.rope(self.initial_noise(0)[None], *self._grid, scale)

    def encode_text(
        self, prompt: str, negative_prompt: str, branches: Sequence[Branch], guidance_scale: float = 1.0
    ) -> dict[Branch, Text]:
        """Encode as the pipeline does: padded to 128 tokens, with a mask.

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
        # the projection sees one token at a time, so once a request is enough
        return {
            branch: (self._net.caption_projection(states)[0], mask[0])
            for branch, (states, mask) in ((branch, encoded[branch]) for branch in branches)
        }

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
        known = {name: scheduler.config.get(name, default) for name, default in _SHIFT.items()}
        shift = calculate_shift(int(np.prod(self._grid)), *known.values())
        scheduler.set_timesteps(sigmas=sigmas, device=self._device, mu=shift)

    def stem(self, latents: Tensor, timesteps: Tensor, texts: Sequence[Text]) -> Stem:
        """Project the tokens and embed the timesteps."""
        hidden = self._net.proj_in(latents.to(self._dtype))
        modulation, embedding = self._net.time_embed(timesteps, batch_size=len(hidden), hidden_dtype=hidden.dtype)
        return Stem(hidden, (modulation[:, None], embedding[:, None]))

    def blocks(self, stem: Stem, texts: Sequence[Text]) -> Tensor:
        """Run the blocks, with the padding of texts masked."""
        modulation, _ = stem.conditions
        text, mask = stack_texts(texts)
        bias = ((1 - mask.to(stem.hidden.dtype)) * _MASKED)[:, None]
        return self.stacks[0](stem.hidden, text, bias, modulation, *self._rope)

    def _make_stacks(self) -> Sequence[BlockStack]:
        return (LtxStack(self._net, self._rope, Range(MAX_TOKENS, MAX_TOKENS), self._dtype),)

    def head(self, hidden: Tensor, stem: Stem) -> Tensor:
        """Modulate and project."""
        _, embedding = stem.conditions
        shift, scale = (self._net.scale_shift_table + embedding).split(1, dim=1)
        output: Tensor = self._net.proj_out(self._net.norm_out(hidden) * (1 + scale) + shift)
        return output

    def guide(self, outputs: Tensor, guidance_scale: float, timestep: Tensor, num_inference_steps: int) -> Tensor:
        """Combine the branches, in the spread of the conditional one where that is wanted."""
        combined = super().guide(outputs, guidance_scale, timestep, num_inference_steps)
        share = self._options.guidance_rescale
        if len(outputs) == 1 or not share:
            return combined
        rescaled: Tensor = rescale_noise_cfg(combined[None], outputs[1:].float(), share)[0]
        return rescaled

    def _decode(self, latents: Tensor, seed: int) -> Tensor:
        pipeline, vae = self._pipeline, self._pipeline.vae
        patch = pipeline.transformer_spatial_patch_size, pipeline.transformer_temporal_patch_size
        cells = pipeline._unpack_latents(latents, *self._grid, *patch)
        cells = pipeline._denormalize_latents(cells, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
        cells, timestep = cells.to(self._dtype), None
        if vae.config.timestep_conditioning:
            timestep = torch.tensor([self._options.decode_timestep], device=self._device, dtype=self._dtype)
            cells = self._add_noise(cells, seed)
        video: Tensor = vae.decode(cells.to(vae.dtype), timestep, return_dict=False)[0]
        return video

    def _add_noise(self, cells: Tensor, seed: int) -> Tensor:
        """Add the noise that the pipeline draws next after the latents'."""
        timestep, share = self._options.decode_timestep, self._options.decode_noise_scale
        generator = torch.Generator("cpu").manual_seed(seed)
        self._draw(generator)
        noise = randn_tensor(cells.shape, generator=generator, device=self._device, dtype=cells.dtype)
        scale = torch.tensor(timestep if share is None else share, device=self._device, dtype=cells.dtype)
        mixed: Tensor = (1 - scale) * cells + scale * noise
        return mixed
