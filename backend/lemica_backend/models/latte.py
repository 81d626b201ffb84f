"""Latte (arXiv 2401.03048): diffusers' LattePipeline cut into stem, block stack and head.

Spatial and temporal blocks alternate and the positions of frames are added after the first
spatial block, so only the whole stack, from patch embedding to ``norm_out``, has a residual
that means something.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers import LattePipeline
from numpy.typing import NDArray
from torch import Tensor

from lemica_backend.errors import InvalidRequestError
from lemica_backend.models.base import ModelInfo, Scheduler, Stem
from lemica_backend.models.schedulers import describe_scheduler
from lemica_backend.models.weights_hash import hash_weights
from lemica_backend.types import Branch

MAX_TOKENS = 120  # LattePipeline.encode_prompt
_MASKED = -10_000.0  # added to the attention score of a padded token
_NO_CONDITIONS = {"resolution": None, "aspect_ratio": None}


class LatteModel:
    """One loaded Latte; holds no state of any request.

    Parameters
    ----------
    folder : Path
        A folder in the diffusers layout of ``LattePipeline``.
    dtype, device
        Where and in what precision the model computes.
    """

    def __init__(self, folder: Path, *, dtype: torch.dtype, device: str) -> None:
        pipeline = LattePipeline.from_pretrained(folder, dtype=dtype, local_files_only=True, low_cpu_mem_usage=False)
        self._pipeline = pipeline.to(device)
        self._net = pipeline.transformer.eval()
        self._device = torch.device(device)
        self._dtype = dtype
        self.info = self._make_info(folder)

    def _make_info(self, folder: Path) -> ModelInfo:
        net, pipeline = self._net.config, self._pipeline
        side = net.sample_size
        scheduler = pipeline.scheduler
        return ModelInfo(
            family="latte",
            max_steps=scheduler.config.num_train_timesteps,
            weights_hash=hash_weights(folder),
            scheduler=type(scheduler).__name__,
            scheduler_config=describe_scheduler(scheduler),
            num_frames=net.video_length,
            height=side * pipeline.vae_scale_factor,
            width=side * pipeline.vae_scale_factor,
            latents_shape=(net.in_channels, net.video_length, side, side),
        )

    def encode_text(self, prompt: str, negative_prompt: str, branches: Sequence[Branch]) -> dict[Branch, Tensor]:
        """Encode as the pipeline does for one prompt: both branches cropped to the prompt's tokens.

        Raises
        ------
        InvalidRequestError
            If a prompt has more tokens than the model was made for (the pipeline would cut it silently).
        """
        self._check_tokens("prompt", prompt)
        self._check_tokens("negative_prompt", negative_prompt)
        guided = "uncond" in branches
        cond, uncond = self._pipeline.encode_prompt(
            prompt, guided, negative_prompt=negative_prompt, device=self._device, clean_caption=False
        )
        states = {"cond": cond, "uncond": uncond}
        # the projection sees one token at a time, so once a request is enough
        return {branch: self._net.caption_projection(states[branch])[0] for branch in branches}

    def _check_tokens(self, name: str, text: str) -> None:
        tokens = len(self._pipeline.tokenizer(text.lower().strip()).input_ids)
        if tokens > MAX_TOKENS:
            raise InvalidRequestError(f"{name} has {tokens} tokens; at most {MAX_TOKENS} are allowed: shorten it")

    def initial_noise(self, seed: int) -> Tensor:
        """Draw on the CPU, so that a seed means the same on every device."""
        generator = torch.Generator("cpu").manual_seed(seed)
        noise = torch.randn((1, *self.info.latents_shape), generator=generator, dtype=self._dtype)
        return noise[0].to(self._device)

    def new_scheduler(self, num_inference_steps: int) -> Scheduler:
        """Copy the pipeline's scheduler; diffusers schedulers keep one request's state."""
        scheduler = copy.deepcopy(self._pipeline.scheduler)
        scheduler.set_timesteps(num_inference_steps, device=self._device)
        return cast(Scheduler, scheduler)

    def stem(self, latents: Tensor, timesteps: Tensor) -> Stem:
        """Cut the frames into patches and embed the timesteps."""
        rows = len(latents)
        images = latents.transpose(1, 2).flatten(0, 1)  # (R * F, C, h, w)
        hidden = self._net.pos_embed(images).unflatten(0, (rows, -1))
        modulation, embedding = self._net.adaln_single(
            timesteps, added_cond_kwargs=_NO_CONDITIONS, batch_size=rows, hidden_dtype=hidden.dtype
        )
        return Stem(hidden, modulation, embedding)

    def blocks(self, stem: Stem, texts: Sequence[Tensor]) -> Tensor:
        """Run the spatial and temporal blocks; texts of different length are padded and masked."""
        rows, frames, patches, _ = stem.hidden.shape
        text, bias = _pad(texts)
        text = text.repeat_interleave(frames, dim=0)
        bias = None if bias is None else bias.repeat_interleave(frames, dim=0)
        by_frame = stem.modulation.repeat_interleave(frames, dim=0)
        by_patch = stem.modulation.repeat_interleave(patches, dim=0)
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
        table = self._net.scale_shift_table[None] + stem.embedding[:, None]  # (R, 2, D)
        shift, scale = table[:, 0, None, None], table[:, 1, None, None]
        patches = self._net.proj_out(self._net.norm_out(hidden) * (1 + scale) + shift)
        channels, frames, height, width = self.info.latents_shape
        side = self._net.config.patch_size
        grid = patches.reshape(len(hidden), frames, height // side, width // side, side, side, -1)
        output: Tensor = grid.permute(0, 6, 1, 2, 4, 3, 5).reshape(len(hidden), -1, frames, height, width)
        return output[:, :channels]

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Decode in the pipeline's own slices and round to uint8."""
        video = self._pipeline.decode_latents(latents[None], latents.shape[1])  # (1, 3, F, H, W) in [-1, 1]
        pixels = (video[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0)
        return cast("NDArray[np.uint8]", (pixels * 255).round().byte().cpu().numpy())


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
