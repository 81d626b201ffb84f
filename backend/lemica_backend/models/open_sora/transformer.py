"""STDiT3, the diffusion transformer of Open-Sora 1.2 (arXiv 2412.20404), with the official names of weights."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from lemica_backend.models.open_sora.embeddings import FrameRotation, NumberEmbedding, patch_positions
from lemica_backend.models.open_sora.layers import Block, Mlp, Texts, modulate


class Timing(NamedTuple):
    """What blocks and head need of the timestep: (R, 1 or frames, 6, width) and (R, width)."""

    modulation: Tensor
    embedding: Tensor


class Still(NamedTuple):
    """Frames that are given, not made: which frames are active, (R, frames), and the embedding of timestep 0."""

    active: Tensor
    embedding: Tensor


class PatchEmbedding(nn.Module):
    """Frames cut into patches, each mapped to a token."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, width, (1, patch, patch), stride=(1, patch, patch))

    def forward(self, latents: Tensor) -> Tensor:
        """Turn (R, channels, frames, h, w) into (R, frames, h / patch, w / patch, width)."""
        tokens: Tensor = self.proj(latents).movedim(1, -1)
        return tokens


class TextEmbedding(nn.Module):
    """The projection of text states, and the learned states that stand for no text."""

    y_embedding: Tensor

    def __init__(self, channels: int, width: int, max_tokens: int) -> None:
        super().__init__()
        self.register_buffer("y_embedding", torch.randn(max_tokens, channels) / channels**0.5)
        self.y_proj = Mlp(channels, width, width)


class FinalLayer(nn.Module):
    """The head: modulated tokens become patches of the output."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)

    def forward(self, hidden: Tensor, embedding: Tensor, still: Still | None = None) -> Tensor:
        """Project (R, frames, patches, width) to (R, frames, patches, outputs)."""
        hidden = self._modulate(hidden, embedding)
        if still is not None:  # given frames are modulated twice: so the official model was trained
            again = self._modulate(hidden, still.embedding)
            hidden = torch.where(still.active[:, :, None, None], hidden, again)
        output: Tensor = self.linear(hidden)
        return output

    def _modulate(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table + embedding[:, None])[:, :, None, None].unbind(1)
        return modulate(hidden, shift, scale)


class STDiT3(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers has no types
    """The transformer; the defaults are STDiT3-XL/2, the published model.

    Parameters
    ----------
    in_channels : int
        Of the latents. The output has twice as many, of which the first half is the velocity.
    caption_channels : int
        Width of the text encoder's states.
    model_max_length : int
        Most tokens of a text.
    depth : int
        Spatial blocks; there are as many temporal ones.
    hidden_size, num_heads : int
    patch_size : int
        Side of a patch in latent cells; a patch is one frame deep.
    input_sq_size : int
        Side in pixels of the frames that positions are counted for.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        in_channels: int = 4,
        caption_channels: int = 4096,
        model_max_length: int = 300,
        depth: int = 28,
        hidden_size: int = 1152,
        num_heads: int = 16,
        patch_size: int = 2,
        input_sq_size: int = 512,
    ) -> None:
        super().__init__()
        self.rope = FrameRotation(hidden_size // num_heads)
        self.x_embedder = PatchEmbedding(in_channels, hidden_size, patch_size)
        self.t_embedder = NumberEmbedding(hidden_size)
        self.fps_embedder = NumberEmbedding(hidden_size)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 6 * hidden_size))
        self.y_embedder = TextEmbedding(caption_channels, hidden_size, model_max_length)
        self.spatial_blocks = nn.ModuleList(Block(hidden_size, num_heads, temporal=False) for _ in range(depth))
        self.temporal_blocks = nn.ModuleList(Block(hidden_size, num_heads, temporal=True) for _ in range(depth))
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * 2 * in_channels)

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Tensor,
        *,
        fps: Tensor,
        height: float,
        width: float,
        text_mask: Tensor | None = None,
        active: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity, from noise to clip, and a variance that sampling does not use.

        Parameters
        ----------
        latents : Tensor, shape (R, channels, frames, h, w)
        timesteps : Tensor, shape (R,)
            0 (clip) to 1000 (noise).
        text : Tensor, shape (R, L, caption_channels)
        fps : Tensor, shape (R,)
            Frames a second; 120 stands for a single image.
        height, width : float
            Of a frame in pixels, before it was cut to whole latent cells.
        text_mask : Tensor of bool, shape (R, L), optional
            Which tokens count; all without it.
        active : Tensor of bool, shape (R, frames), optional
            Which frames are made; the others are given, at timestep 0.

        Returns
        -------
        Tensor of float32, shape (R, 2 * channels, frames, h, w)
        """
        timing = self.embed_times(timesteps, fps)
        still = None
        if active is not None:
            zero = self.embed_times(torch.zeros_like(timesteps), fps)
            still = Still(active, zero.embedding)
            chosen = torch.where(active[:, :, None, None], timing.modulation, zero.modulation)
            timing = timing._replace(modulation=chosen)
        shown = None if text_mask is None else text_mask[:, None, None, :]
        hidden = self.embed_latents(latents, height=height, width=width)
        hidden = self.transform(hidden, Texts(self.y_embedder.y_proj(text), shown), timing.modulation)
        return self.predict(hidden, timing.embedding, (latents.shape[-2], latents.shape[-1]), still)

    def embed_times(self, timesteps: Tensor, fps: Tensor) -> Timing:
        """Embed timesteps and frame rates, both of shape (R,)."""
        embedding = self.t_embedder(timesteps) + self.fps_embedder(fps)
        return Timing(self.t_block(embedding).unflatten(-1, (6, -1))[:, None], embedding)

    def embed_latents(self, latents: Tensor, *, height: float, width: float) -> Tensor:
        """Cut latents (R, channels, frames, h, w) into tokens (R, frames, patches, width) that know their places."""
        patch = self.config.patch_size
        below, right = -latents.shape[-2] % patch, -latents.shape[-1] % patch
        tokens = self.x_embedder(functional.pad(latents.to(self.x_embedder.proj.weight.dtype), (0, right, 0, below)))
        rows, columns, channels = tokens.shape[2:]
        scale = math.sqrt(height * width) / self.config.input_sq_size
        places = patch_positions(rows, columns, channels, scale=scale, device=latents.device)
        hidden: Tensor = tokens.flatten(2, 3) + places.to(tokens.dtype)
        return hidden

    def transform(self, hidden: Tensor, texts: Texts, modulation: Tensor) -> Tensor:
        """Run the block stack; the shape stays."""
        rotation = self.rope(hidden.shape[1])
        for spatial, temporal in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            hidden = spatial(hidden, texts, modulation, rotation)
            hidden = temporal(hidden, texts, modulation, rotation)
        return hidden

    def predict(
        self, hidden: Tensor, embedding: Tensor, latent_size: tuple[int, int], still: Still | None = None
    ) -> Tensor:
        """Turn hidden states into the output, in float32 and cropped to the latents' height and width."""
        patch, (height, width) = self.config.patch_size, latent_size
        patches = self.final_layer(hidden, embedding, still)
        grid = patches.unflatten(2, (-1, -(-width // patch))).unflatten(-1, (patch, patch, -1))
        video: Tensor = grid.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)  # (R, channels, F, h, w)
        return video[..., :height, :width].float()

    def null_text(self, tokens: int) -> Tensor:
        """Return the states that stand for no text: the first `tokens` of those that were learned.

        The official sampler hides from both branches what the caption is too short for, so the null text is as long
        as the caption.
        """
        states: Tensor = self.y_embedder.y_embedding[:tokens]
        return states
