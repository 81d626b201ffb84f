"""Latte (arXiv 2401.03048): diffusers' LattePipeline cut into stem, block stack and head.

Spatial and temporal blocks alternate and the positions of frames are added after the first
spatial block, so only the whole stack, from patch embedding to ``norm_out``, has a residual
that means something.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, LattePipeline
from torch import Tensor, nn

from lemica_backend.blocks.stack import BlockStack, Range
from lemica_backend.config import Size
from lemica_backend.models.base import Stem
from lemica_backend.models.latte_stack import LatteStack
from lemica_backend.models.pipeline_model import Options, PipelineModel, Shape, fixed_shape
from lemica_backend.types import Branch

MAX_TOKENS = 120  # LattePipeline.encode_prompt
_MASKED = -10_000.0  # added to the attention score of a padded token
_NO_CONDITIONS = {"resolution": None, "aspect_ratio": None}


class LatteOptions(Options):
    """What LattePipeline takes beside a request.

    Attributes
    ----------
    clean_caption : bool
        Whether prompts lose web addresses, markup and odd punctuation, as DeepFloyd's authors did. The pipeline's own
        default is True.
    temporal_decoder: bool
        Whether to decode with the autoencoder in the folder ``vae_temporal_decoder``, as the official sampler may.
    """

    clean_caption: bool = False
    temporal_decoder: bool = False


class LatteModel(PipelineModel):
    """One loaded Latte; holds no state of any request. Its size is fixed by its weights."""

    family = "latte"
    pipeline_class = LattePipeline
    options_class = LatteOptions
    stem_sees_text = False

    def _other_parts(self, folder: Path, dtype: torch.dtype) -> dict[str, Any]:
        if not self._options.temporal_decoder:
            return {}
        own = folder / "vae_temporal_decoder"
        if not own.is_dir():
            raise ValueError(f"model.json, options.temporal_decoder: there is no {own}")
        return {"vae": AutoencoderKLTemporalDecoder.from_pretrained(own, dtype=dtype, local_files_only=True)}

    def _default_shape(self) -> Shape:
        side = self._net.config.sample_size * self._pipeline.vae_scale_factor
        return Shape(side, side, self._net.config.video_length)

    def _prepare(self) -> None:
        net = self._net.config
        side = net.sample_size // net.patch_size
        self._grid = net.video_length, side, side
        self._projection = _first_channels(self._net.proj_out, net.in_channels, net.out_channels)

    def _choose_shape(self, size: Size) -> Shape:
        return fixed_shape(self._default_shape(), size)

    def encode_text(
        self, prompt: str, negative_prompt: str, branches: Sequence[Branch], guidance_scale: float = 1.0
    ) -> dict[Branch, Tensor]:
        """Encode as the pipeline does for one prompt: both branches cropped to the prompt's tokens.

        Raises
        ------
        InvalidRequestError
            If a prompt has more tokens than the model was made for (the pipeline would cut it silently).
        """
        self._require_tokens(MAX_TOKENS, prompt=prompt, negative_prompt=negative_prompt)
        cond, uncond = self._pipeline.encode_prompt(
            prompt,
            "uncond" in branches,
            negative_prompt=negative_prompt,
            device=self._device,
            clean_caption=self._options.clean_caption,
        )
        states = {"cond": cond, "uncond": uncond}
        # the projection sees one token at a time, so once a request is enough
        return {branch: self._net.caption_projection(states[branch])[0] for branch in branches}

    def _count_tokens(self, text: str) -> int:
        (text,) = self._pipeline._text_preprocessing(text, clean_caption=self._options.clean_caption)
        return super()._count_tokens(text)

    def _draw(self, generator: torch.Generator) -> Tensor:
        net = self._net.config
        shape = (net.in_channels, net.video_length, net.sample_size, net.sample_size)
        return torch.randn(shape, generator=generator, dtype=self._dtype).to(self._device)

    def stem(self, latents: Tensor, timesteps: Tensor, texts: Sequence[Tensor] = ()) -> Stem:
        """Cut the frames into patches and embed the timesteps; texts are not looked at."""
        hidden = self._embed(latents)
        embed_times = self._net.adaln_single.emb
        embedding = embed_times(timesteps, **_NO_CONDITIONS, batch_size=len(hidden), hidden_dtype=hidden.dtype)
        return Stem(hidden, (embedding,))

    def _embed(self, latents: Tensor) -> Tensor:
        """Do what the pipeline's convolution does, which leaves its output in an order that slows whatever reads it."""
        embed, side = self._net.pos_embed, self._net.config.patch_size
        pixels = latents.unflatten(4, (-1, side)).unflatten(3, (-1, side))  # (R, C, F, h, p, w, p)
        patches = pixels.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(2, 3)  # (R, F, N, C * p * p)
        hidden = nn.functional.linear(patches, embed.proj.weight.flatten(1), embed.proj.bias)
        placed: Tensor = (hidden + embed.pos_embed).to(hidden.dtype)
        return placed

    def blocks(self, stem: Stem, texts: Sequence[Tensor]) -> Tensor:
        """Run the spatial and temporal blocks; texts of different length are padded and masked."""
        text, bias = _pad(texts)
        return self.stacks[0](stem.hidden, text, bias, self.modulation(stem))

    def modulation(self, stem: Stem) -> Tensor:
        """Return what scales, shifts and gates the blocks, (R, 6 * width); skipped steps do without."""
        adaln, (embedding,) = self._net.adaln_single, stem.conditions
        modulation: Tensor = adaln.linear(adaln.silu(embedding))
        return modulation

    def _make_stacks(self) -> Sequence[BlockStack]:
        return (LatteStack(self._net, math.prod(self._grid[1:]), Range(1, MAX_TOKENS), self._dtype),)

    def head(self, hidden: Tensor, stem: Stem) -> Tensor:
        """Modulate, project and put the patches together, without the variance channels."""
        (embedding,) = stem.conditions
        table = self._net.scale_shift_table[None] + embedding[:, None]  # (R, 2, D)
        shift, scale = table[:, 0, None, None], table[:, 1, None, None]
        patches = self._projection(torch.addcmul(shift, self._net.norm_out(hidden), 1 + scale))
        channels, frames, height, width = self.info.latents_shape
        side = self._net.config.patch_size
        grid = patches.reshape(len(hidden), frames, height // side, width // side, side, side, -1)
        output: Tensor = grid.permute(0, 6, 1, 2, 4, 3, 5).reshape(len(hidden), -1, frames, height, width)
        return output[:, :channels]

    def _decode(self, latents: Tensor, seed: int) -> Tensor:
        video: Tensor = self._pipeline.decode_latents(latents, latents.shape[2])  # in its slices of 14 frames
        return video


def _first_channels(projection: nn.Linear, kept: int, channels: int) -> nn.Module:
    """Return the projection to the first channels of each pixel; the whole one where its weights are packed."""
    if type(projection.weight) is not nn.Parameter:
        return projection
    part = copy.deepcopy(projection)
    for name, values in part.named_parameters():
        rows = values.detach().unflatten(0, (-1, channels))[:, :kept].flatten(0, 1)
        setattr(part, name, nn.Parameter(rows, requires_grad=False))
    part.out_features = len(part.weight)
    return part


def _pad(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Stack texts (L, D) to (R, longest, D), with the bias (R, 1, longest) that hides the padding."""
    lengths = {len(text) for text in texts}
    if len(lengths) == 1:
        return torch.stack(list(texts)), None
    padded = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    bias = padded.new_full((len(texts), 1, padded.shape[1]), _MASKED)
    for row, text in enumerate(texts):
        bias[row, :, : len(text)] = 0
    return padded, bias
