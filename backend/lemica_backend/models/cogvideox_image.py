"""CogVideoX that goes on from an image, 1.0 and 1.5: diffusers' CogVideoXImageToVideoPipeline.

The model sees the image's latents beside the noisy ones, in channels of their own. Its pipeline samples them from the
autoencoder's distribution, with the request's own generator, before it draws the video's noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import CogVideoXImageToVideoPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from lemica_backend.image_file import open_image
from lemica_backend.models.base import Shown, Text
from lemica_backend.models.cogvideox import CogVideoXModel
from lemica_backend.types import Branch, Image


class CogVideoXImageModel(CogVideoXModel):
    """One loaded CogVideoX that begins with an image; holds no state of any request."""

    family = "cogvideox_i2v"
    pipeline_class = CogVideoXImageToVideoPipeline
    takes_image = True

    def _require_task(self) -> None:
        net, latents = self._net.config, self._pipeline.vae.config.latent_channels
        if net.in_channels != 2 * latents:
            raise ValueError(
                f"the transformer takes {net.in_channels} channels; to begin with an image it takes {2 * latents}: "
                "these weights are for other pipelines"
            )

    def _latents_channels(self) -> int:
        return int(self._net.config.in_channels) // 2

    def _draw(self, generator: torch.Generator) -> Tensor:
        """Draw what the pipeline draws: for the image's latents first."""
        shape, pipeline = self._drawn_shape(), self._pipeline
        frames = (shape.num_frames - 1) // pipeline.vae_scale_factor_temporal + 1
        height, width = (side // pipeline.vae_scale_factor_spatial for side in (shape.height, shape.width))
        channels, more = self._latents_channels(), (generator, self._device, self._latents_dtype())
        randn_tensor((1, channels, 1, height, width), *more)
        noise: Tensor = randn_tensor((1, frames, channels, height, width), *more)
        return noise[0]

    @torch.inference_mode()
    def show(self, texts: dict[Branch, Text], image: Image, seed: int) -> Shown:
        """Encode the image as the pipeline does, scaled to the video's size."""
        shape, pipeline = self._drawn_shape(), self._pipeline
        pixels = pipeline.video_processor.preprocess(open_image(image), shape.height, shape.width)
        _, given = pipeline.prepare_latents(
            pixels.to(self._device, self._dtype),
            1,
            self._latents_channels(),
            shape.num_frames,
            shape.height,
            shape.width,
            dtype=self._latents_dtype(),
            device=self._device,
            generator=torch.Generator("cpu").manual_seed(seed),
        )
        return Shown({branch: (*text, given[0]) for branch, text in texts.items()})

    def _seen(self, latents: Tensor, given: Sequence[Tensor]) -> Tensor:
        return torch.cat([latents, *given], dim=2)
