"""Wan 2.1 and 2.2 that go on from an image: diffusers' WanImageToVideoPipeline.

The 14B models see the image's latents beside the noisy ones, in channels of their own, with a mask of the frames that
are given; 2.1 also attends to what a CLIP encoder makes of it. 2.2 5B has the image as its first latent frame, at
timestep 0 for those tokens, in the very weights that make videos of text alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from diffusers import WanImageToVideoPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from lemica_backend.blocks.stack import BlockStack, Range
from lemica_backend.image_file import open_image
from lemica_backend.models.base import Shown, Text
from lemica_backend.models.wan import WanModel
from lemica_backend.models.wan_stack import MAX_TOKENS, WanStack
from lemica_backend.types import Branch, Image


class _Text(NamedTuple):
    """What a row needs of text and image."""

    states: Tensor  # of the text
    given: Tensor | None = None  # mask and latents of the given frames, where they are channels
    clip: Tensor | None = None  # states of the image, where the blocks attend to them


class WanImageModel(WanModel):
    """One loaded Wan that begins with an image; holds no state of any request."""

    family = "wan_i2v"
    pipeline_class = WanImageToVideoPipeline
    takes_image = True

    def _dtypes(self, dtype: torch.dtype) -> Any:
        return super()._dtypes(dtype) | {"image_encoder": torch.float32}  # as the pipeline's authors load it

    def _prepare(self) -> None:
        self._keeps_first = bool(self._pipeline.config.expand_timesteps)
        super()._prepare()
        self._clip_tokens = self._count_clip_tokens()

    def _seen_channels(self) -> int:
        latents = self._latents_channels()
        return latents if self._keeps_first else 2 * latents + int(self._pipeline.vae_scale_factor_temporal)

    def _count_clip_tokens(self) -> int:
        """Return the tokens of what the blocks attend to of the image; 0 where they do not."""
        dims = {(net.config.image_dim, net.config.pos_embed_seq_len) for net in self._nets if net is not None}
        if len(dims) > 1 or any(length is not None for _, length in dims):
            raise ValueError("the transformer goes from a first image to a last one (pos_embed_seq_len); not served")
        if dims == {(None, None)}:
            return 0
        if self._keeps_first or self._pipeline.image_encoder is None:
            raise ValueError("the transformer attends to a CLIP image: give image_encoder and image_processor")
        clip = self._pipeline.image_encoder.config
        return int(clip.image_size // clip.patch_size) ** 2 + 1

    def _latents_channels(self) -> int:
        channels: int = self._pipeline.vae.config.z_dim
        return channels

    def _draw(self, generator: torch.Generator) -> Tensor:
        """Draw what the pipeline draws; the image is encoded without noise."""
        frames = (self.shape.num_frames - 1) // self._pipeline.vae_scale_factor_temporal + 1
        cells = (side // self._pipeline.vae_scale_factor_spatial for side in (self.shape.height, self.shape.width))
        noise: Tensor = randn_tensor(
            (self._latents_channels(), frames, *cells), generator, self._device, self._latents_dtype()
        )
        return noise

    @torch.inference_mode()
    def show(self, texts: dict[Branch, Text], image: Image, seed: int) -> Shown:
        """Encode the image as the pipeline does: scaled to the video's size for the autoencoder, whole for CLIP."""
        pixels = open_image(image)
        given = self._encode(self._pipeline.video_processor.preprocess(pixels, self.shape.height, self.shape.width))
        if self._keeps_first:
            return Shown({branch: _Text(text[0]) for branch, text in texts.items()}, kept=given)
        clip = self._pipeline.encode_image(pixels, self._device)[0].to(self._dtype) if self._clip_tokens else None
        return Shown({branch: _Text(text[0], given, clip) for branch, text in texts.items()})

    def _encode(self, pixels: Tensor) -> Tensor:
        """Return the image's latents, with the mask of the frames that are given where the model wants it."""
        _, given, *_ = self._pipeline.prepare_latents(
            pixels.to(self._device, torch.float32),
            1,
            self._latents_channels(),
            *self.shape,
            dtype=self._latents_dtype(),
            device=self._device,
            latents=torch.zeros(1),  # no more noise
        )
        return given[0]  # type: ignore[no-any-return]

    def _seen(self, latents: Tensor, texts: Sequence[Text]) -> Tensor:
        if self._keeps_first:  # the first frame is there already
            return latents
        return torch.cat([latents, torch.stack([text.given for text in texts])], dim=1)

    def _embed_times(self, net: Any, timesteps: Tensor, no_text: Tensor) -> tuple[Tensor, Tensor]:
        """Embed 0 for the tokens of a first frame that is kept, as the pipeline does."""
        if not self._keeps_first:
            return super()._embed_times(net, timesteps, no_text)
        frames, *cells = self._grid
        moves = torch.arange(frames, device=self._device).repeat_interleave(cells[0] * cells[1]) > 0
        each = (timesteps[:, None] * moves.float()).flatten()
        embedding, modulation, *_ = net.condition_embedder(each, no_text, timestep_seq_len=len(moves))
        return embedding, modulation

    def _states(self, texts: Sequence[Text]) -> tuple[Tensor, ...]:
        states = torch.stack([text.states for text in texts])
        return (states, torch.stack([text.clip for text in texts])) if self._clip_tokens else (states,)

    def _make_stacks(self) -> Sequence[BlockStack]:
        text, image, times = Range(MAX_TOKENS, MAX_TOKENS), self._clip_tokens, self._keeps_first
        make = partial(WanStack, rope=self._rope, text=text, dtype=self._dtype, image=image, times_tokens=times)
        return [make(net) for net in self._nets if net is not None]
