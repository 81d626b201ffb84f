"""The second stage of the autoencoder: latents of frames, four to one along time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from lemica_backend.models.open_sora.causal import CausalConv3d, residual_blocks
from lemica_backend.models.open_sora.sizes import TEMPORAL_FACTOR

_STRIDE = 2


@dataclass(frozen=True)
class TemporalSizes:
    """The defaults are those of the published autoencoder.

    Attributes
    ----------
    channels : int
        Of the latents, before and after.
    filters : int
        Channels of the outermost level.
    multipliers : sequence of int
        Of `filters`, for each level from the outermost on; the last two steps between levels halve the frames.
    blocks : int
        Residual blocks a level.
    groups : int
        Of the group norms.
    """

    channels: int = 4
    filters: int = 128
    multipliers: Sequence[int] = (1, 2, 2, 4)
    blocks: int = 4
    groups: int = 32

    @property
    def levels(self) -> list[int]:
        """Channels of each level."""
        return [self.filters * each for each in self.multipliers]

    def is_halved_after(self, level: int) -> bool:
        """Whether there are half as many frames at the next level."""
        return len(self.multipliers) - 3 <= level < len(self.multipliers) - 1


class TemporalEncoder(nn.Module):
    """From latents of frames to mean and log-variance."""

    def __init__(self, sizes: TemporalSizes) -> None:
        super().__init__()
        levels, blocks, groups = sizes.levels, sizes.blocks, sizes.groups
        starts = [sizes.filters, *levels[:-1]]
        self.conv_in = CausalConv3d(sizes.channels, sizes.filters, 3, bias=False)
        self.block_res_blocks = nn.ModuleList(
            residual_blocks(start, end, blocks, groups) for start, end in zip(starts, levels, strict=True)
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, width, 3, stride=_STRIDE) if sizes.is_halved_after(level) else nn.Identity()
            for level, width in enumerate(levels[:-1])
        )
        self.res_blocks = residual_blocks(levels[-1], levels[-1], blocks, groups)
        self.norm1 = nn.GroupNorm(groups, levels[-1])
        self.conv2 = CausalConv3d(levels[-1], 2 * sizes.channels, 1)

    def forward(self, video: Tensor) -> Tensor:
        """Encode (B, channels, frames, h, w) to (B, 2 * channels, frames / 4, h, w)."""
        hidden = self.conv_in(video)
        for blocks, shorten in zip(self.block_res_blocks, [*self.conv_blocks, nn.Identity()], strict=True):
            hidden = shorten(blocks(hidden))
        output: Tensor = self.conv2(functional.silu(self.norm1(self.res_blocks(hidden))))
        return output


class TemporalDecoder(nn.Module):
    """From latents back to latents of frames."""

    def __init__(self, sizes: TemporalSizes) -> None:
        super().__init__()
        levels, blocks, groups = sizes.levels, sizes.blocks, sizes.groups
        starts = [*levels[1:], levels[-1]]
        self.conv1 = CausalConv3d(sizes.channels, levels[-1], 3)
        self.res_blocks = residual_blocks(levels[-1], levels[-1], blocks, groups)
        self.block_res_blocks = nn.ModuleList(
            residual_blocks(start, end, blocks, groups) for start, end in zip(starts, levels, strict=True)
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, _STRIDE * width, 3) if sizes.is_halved_after(level) else nn.Identity()
            for level, width in zip(range(len(levels) - 1), levels[1:], strict=True)
        )
        self.norm1 = nn.GroupNorm(groups, levels[0])
        self.conv_out = CausalConv3d(levels[0], sizes.channels, 3)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode (B, channels, frames, h, w) to (B, channels, 4 * frames, h, w)."""
        hidden = self.res_blocks(self.conv1(latents))
        for level in reversed(range(len(self.block_res_blocks))):
            hidden = self.block_res_blocks[level](hidden)
            if level > 0 and not isinstance(self.conv_blocks[level - 1], nn.Identity):
                hidden = _lengthen(self.conv_blocks[level - 1](hidden))
        output: Tensor = self.conv_out(functional.silu(self.norm1(hidden)))
        return output


def _lengthen(hidden: Tensor) -> Tensor:
    """Turn channels into frames: neighbouring channels are neighbouring frames."""
    frames: Tensor = hidden.unflatten(1, (-1, _STRIDE)).movedim(2, 3).flatten(2, 3)
    return frames


class TemporalVAE(nn.Module):
    """Encoder and decoder; a video whose length is no multiple of 4 begins with zeros, which are dropped again."""

    def __init__(self, sizes: TemporalSizes) -> None:
        super().__init__()
        self.encoder = TemporalEncoder(sizes)
        self.quant_conv = CausalConv3d(2 * sizes.channels, 2 * sizes.channels, 1)
        self.post_quant_conv = CausalConv3d(sizes.channels, sizes.channels, 1)
        self.decoder = TemporalDecoder(sizes)

    def encode(self, frames: Tensor) -> Tensor:
        """Return the most likely latents (B, channels, ceil(F / 4), h, w) of latents of F frames."""
        missing = -frames.shape[2] % TEMPORAL_FACTOR
        whole = functional.pad(frames, (0, 0, 0, 0, missing, 0))
        mean: Tensor = self.quant_conv(self.encoder(whole)).chunk(2, dim=1)[0]
        return mean

    def decode(self, latents: Tensor, num_frames: int) -> Tensor:
        """Return latents of `num_frames` frames, (B, channels, num_frames, h, w)."""
        frames: Tensor = self.decoder(self.post_quant_conv(latents))[:, :, -num_frames % TEMPORAL_FACTOR :]
        return frames
