"""Convolutions along time that see no later frame, and the residual block made of them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class CausalConv3d(nn.Module):
    """A 3-D convolution whose padding along time is all in front; zeros stand for what was before the video.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel : int
        Size in all three directions, odd.
    stride : int
        Along time.
    bias : bool
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        side = kernel // 2
        self._padding = (side, side, side, side, kernel - stride, 0)
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride=(stride, 1, 1), bias=bias)

    def forward(self, video: Tensor) -> Tensor:
        """Convolve (B, inputs, frames, h, w) to (B, outputs, frames / stride, h, w)."""
        output: Tensor = self.conv(functional.pad(video, self._padding))
        return output


class ResidualBlock(nn.Module):
    """Two normalised causal convolutions; where the channels change, a 1 x 1 x 1 one maps the input to the output."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs)
        self.conv1 = CausalConv3d(inputs, outputs, 3, bias=False)
        self.norm2 = nn.GroupNorm(groups, outputs)
        self.conv2 = CausalConv3d(outputs, outputs, 3, bias=False)
        self.conv3 = nn.Identity() if inputs == outputs else CausalConv3d(inputs, outputs, 1, bias=False)

    def forward(self, video: Tensor) -> Tensor:
        """Transform (B, inputs, frames, h, w) to (B, outputs, frames, h, w)."""
        change = self.conv1(functional.silu(self.norm1(video)))
        change = self.conv2(functional.silu(self.norm2(change)))
        output: Tensor = self.conv3(video) + change
        return output


def residual_blocks(inputs: int, outputs: int, count: int, groups: int) -> nn.Sequential:
    """Return `count` blocks in a row; the first changes the channels."""
    return nn.Sequential(*(ResidualBlock(outputs if at else inputs, outputs, groups) for at in range(count)))
