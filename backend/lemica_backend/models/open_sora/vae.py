"""The autoencoder of Open-Sora 1.2: frame by frame first, then along time (arXiv 2412.20404)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from lemica_backend.models.open_sora.sizes import CHUNK_FRAMES, CHUNK_LATENTS, latent_frames
from lemica_backend.models.open_sora.temporal_vae import TemporalSizes, TemporalVAE

SDXL: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "sample_size": 512,
}
PUBLISHED_TEMPORAL: dict[str, Any] = dataclasses.asdict(TemporalSizes())
_FRAMES_AT_ONCE = 4  # that the first stage holds in memory


class OpenSoraVAE(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers has no types
    """Two autoencoders, one after the other; the defaults are the published ones.

    Parameters
    ----------
    spatial : mapping
        Of diffusers' `AutoencoderKL`.
    temporal : mapping or None
        Of `TemporalSizes`; without it there is no second stage, and each frame has latents of its own.
    scaling_factor : float
        Of the latents between the stages.
    """

    scale: Tensor
    shift: Tensor

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        spatial: Mapping[str, Any] = SDXL,
        temporal: Mapping[str, Any] | None = PUBLISHED_TEMPORAL,
        scaling_factor: float = 0.18215,
    ) -> None:
        super().__init__()
        channels = (1, spatial["latent_channels"], 1, 1, 1)
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("shift", torch.zeros(channels))
        self.spatial_vae = nn.ModuleDict({"module": AutoencoderKL(**spatial)})
        self.temporal_vae = None if temporal is None else TemporalVAE(TemporalSizes(**temporal))

    @property
    def spatial_factor(self) -> int:
        """Pixels a latent cell, in height and in width."""
        return int(2 ** (len(self.config.spatial["block_out_channels"]) - 1))

    def latent_frames(self, num_frames: int) -> int:
        """Return how many latents a video has in time."""
        return num_frames if self.temporal_vae is None else latent_frames(num_frames)

    @property
    def _frames(self) -> Any:
        """The first stage."""
        return self.spatial_vae["module"]

    def encode(self, video: Tensor) -> Tensor:
        """Return the most likely latents.

        Parameters
        ----------
        video : Tensor, shape (B, 3, frames, height, width)
            In [-1, 1].

        Returns
        -------
        Tensor, shape (B, channels, latent frames, height / 8, width / 8)
        """
        frames = [
            self._frames.encode(part).latent_dist.mode()
            for part in video.to(self.dtype).transpose(1, 2).flatten(0, 1).split(_FRAMES_AT_ONCE)
        ]
        latents = torch.cat(frames).unflatten(0, (len(video), -1)).transpose(1, 2) * self.config.scaling_factor
        if self.temporal_vae is not None:
            chunks = latents.split(CHUNK_FRAMES, dim=2)
            latents = torch.cat([self.temporal_vae.encode(chunk) for chunk in chunks], dim=2)
        normal: Tensor = (latents - self.shift) / self.scale
        return normal

    def decode(self, latents: Tensor, num_frames: int) -> Tensor:
        """Return the video (B, 3, num_frames, height, width), about in [-1, 1], in the official chunks."""
        latents = (latents * self.scale + self.shift).to(self.dtype)
        if self.temporal_vae is not None:
            latents = self._decode_time(self.temporal_vae, latents, num_frames)
        frames = latents.transpose(1, 2).flatten(0, 1) / self.config.scaling_factor
        pixels = [self._frames.decode(part).sample for part in frames.split(_FRAMES_AT_ONCE)]
        video: Tensor = torch.cat(pixels).unflatten(0, (len(latents), -1)).transpose(1, 2)
        return video

    @staticmethod
    def _decode_time(stage: TemporalVAE, latents: Tensor, num_frames: int) -> Tensor:
        chunks = latents.split(CHUNK_LATENTS, dim=2)
        lengths = [min(CHUNK_FRAMES, num_frames - start) for start in range(0, num_frames, CHUNK_FRAMES)]
        return torch.cat([stage.decode(*each) for each in zip(chunks, lengths, strict=True)], dim=2)
