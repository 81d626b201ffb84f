"""Where a token is and when: fixed tables and the embeddings of numbers, all computed in float32.

Half precision cannot hold what is tabled here: it would turn a width of 854 into 856 and move the angles of late
frames by hundredths of a radian.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

MAX_PERIOD = 10_000.0
_FREQUENCIES = 128


class Rotation(NamedTuple):
    """Cosines and sines of the angles by which queries and keys are turned, each of shape (frames, channels)."""

    cos: Tensor
    sin: Tensor


class NumberEmbedding(nn.Module):
    """A number as cosines and sines, then two linear layers (Peebles and Xie, arXiv 2212.09748)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, numbers: Tensor) -> Tensor:
        """Embed numbers of shape (R,), fractions included, to (R, width)."""
        exponents = torch.arange(_FREQUENCIES, device=numbers.device, dtype=torch.float32) / _FREQUENCIES
        angles = numbers.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * exponents)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        embedding: Tensor = self.mlp(waves.to(next(self.mlp.parameters()).dtype))
        return embedding


class FrameRotation(nn.Module):
    """Rotary positions of frames (Su et al., arXiv 2104.09864).

    The official file stores the frequencies, under ``rope.freqs``, although they never change. They are kept for that
    file's sake and not used: a model in half precision would round them.
    """

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._channels = channels
        self.register_buffer("freqs", _rotary_frequencies(channels))

    def forward(self, frames: int) -> Rotation:
        """Return the angles' cosines and sines for frames 0, 1, ..."""
        device = self.freqs.device
        angles = torch.arange(frames, device=device).float()[:, None] * _rotary_frequencies(self._channels, device)
        angles = angles.repeat_interleave(2, dim=1)
        return Rotation(angles.cos(), angles.sin())


def _rotary_frequencies(channels: int, device: torch.device | None = None) -> Tensor:
    return MAX_PERIOD ** (-torch.arange(0, channels, 2, device=device).float() / channels)


def rotate(values: Tensor, rotation: Rotation) -> Tensor:
    """Turn neighbouring pairs of channels by their frame's angles; values of shape (..., frames, channels)."""
    even, odd = values.float().unflatten(-1, (-1, 2)).unbind(-1)
    quarter_turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (values * rotation.cos + quarter_turned * rotation.sin).to(values.dtype)


def patch_positions(rows: int, columns: int, width: int, *, scale: float, device: torch.device) -> Tensor:
    """Return the sines and cosines of a grid of patches.

    Parameters
    ----------
    rows, columns : int
        Patches of a frame.
    width : int
        Channels; the first half tells the column, the second the row.
    scale : float
        Side of the frame in units of the side that the model was first trained on.

    Returns
    -------
    Tensor, shape (rows * columns, width)
    """
    base = round(math.sqrt(rows * columns))
    tall, wide = (_waves(torch.arange(n, device=device) * (base / n) / scale, width // 2) for n in (rows, columns))
    across = wide[None].expand(rows, -1, -1)
    down = tall[:, None].expand(-1, columns, -1)
    return torch.cat([across, down], dim=-1).flatten(0, 1)


def _waves(positions: Tensor, width: int) -> Tensor:
    frequencies = MAX_PERIOD ** (-torch.arange(0, width, 2, device=positions.device).float() / width)
    angles = positions.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)
