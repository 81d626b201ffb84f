"""Latte (arXiv 2401.03048): diffusers' LattePipeline cut into stem, block stack and head.

Spatial and temporal blocks alternate and the positions of frames are added after the first
spatial block, so only the whole stack, from patch embedding to ``norm_out``, has a residual
that means something.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, LattePipeline
from torch import Tensor

from lemica_backend.config import Size
from lemica_backend.models.base import Stem
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
        rows = len(latents)
        images = latents.transpose(1, 2).flatten(0, 1)  # (R * F, C, h, w)
        hidden = self._net.pos_embed(images).unflatten(0, (rows, -1))
        modulation, embedding = self._net.adaln_single(
            timesteps, added_cond_kwargs=_NO_CONDITIONS, batch_size=rows, hidden_dtype=hidden.dtype
        )
        return Stem(hidden, (modulation, embedding))

    def blocks(self, stem: Stem, texts: Sequence[Tensor]) -> Tensor:
        """Run the spatial and temporal blocks; texts of different length are padded and masked."""
        rows, frames, patches, _ = stem.hidden.shape
        text, bias = _pad(texts)
        text = text.repeat_interleave(frames, dim=0)
        bias = None if bias is None else bias.repeat_interleave(frames, dim=0)
        modulation, _ = stem.conditions
        by_frame, by_patch = (modulation.repeat_interleave(times, dim=0) for times in (frames, patches))
        hidden: Tensor = stem.hidden.flatten(0, 1)  # (R * F, N, D)
        stacks = zip(self._net.transformer_blocks, self._net.temporal_transformer_blocks, strict=True)
        for index, (spatial, temporal) in enumerate(stacks):
            hidden = spatial(hidden, None, text, bias, by_frame, None, None)
            hidden = hidden.unflatten(0, (rows, frames)).transpose(1, 2).flatten(0, 1)  # (R * N, F, D)
            if index == 0:
                hidden = hidden + self._net.temp_pos_embed.to(hidden.dtype)
            hidden = temporal(hidden, None, None, None, by_patch, None, None)
            hidden = hidden.unflatten(0, (rows, patches)).transpose(1, 2).flatten(0, 1)
        output: Tensor = hidden.unflatten(0, (rows, frames))
        return output

    def head(self, hidden: Tensor, stem: Stem) -> Tensor:
        """Modulate, project and put the patches together; the variance channels are dropped."""
        _, embedding = stem.conditions
        table = self._net.scale_shift_table[None] + embedding[:, None]  # (R, 2, D)
        shift, scale = table[:, 0, None, None], table[:, 1, None, None]
        patches = self._net.proj_out(self._net.norm_out(hidden) * (1 + scale) + shift)
        channels, frames, height, width = self.info.latents_shape
        side = self._net.config.patch_size
        grid = patches.reshape(len(hidden), frames, height // side, width // side, side, side, -1)
        output: Tensor = grid.permute(0, 6, 1, 2, 4, 3, 5).reshape(len(hidden), -1, frames, height, width)
        return output[:, :channels]

    def _decode(self, latents: Tensor, seed: int) -> Tensor:
        video: Tensor = self._pipeline.decode_latents(latents, latents.shape[2])  # in its slices of 14 frames
        return video


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
