"""The transformer's block and its layers; names of parameters are those of the official file."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lemica_backend.models.open_sora.embeddings import Rotation, rotate

NORM_EPS = 1e-6
MLP_RATIO = 4


class Texts(NamedTuple):
    """What the rows attend to: states of shape (R, L, width); which are no padding, (R, 1, 1, L), or None for all."""

    states: Tensor
    shown: Tensor | None


class SelfAttention(nn.Module):
    """Attention with normalised queries and keys (Henry et al., arXiv 2010.04245)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.RMSNorm(width // heads, eps=NORM_EPS)
        self.k_norm = nn.RMSNorm(width // heads, eps=NORM_EPS)
        self.proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor, rotation: Rotation | None) -> Tensor:
        """Attend among the tokens of each sequence, shape (sequences, tokens, width)."""
        query, key, value = self.qkv(hidden).unflatten(-1, (3, self._heads, -1)).transpose(1, 3).unbind(2)
        query, key = self.q_norm(query), self.k_norm(key)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return output


class CrossAttention(nn.Module):
    """Attention of a video's tokens to its text."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.q_linear = nn.Linear(width, width)
        self.kv_linear = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor, texts: Texts) -> Tensor:
        """Attend from (R, tokens, width) to the texts' shown states."""
        query = self.q_linear(hidden).unflatten(-1, (self._heads, -1)).transpose(1, 2)
        key, value = self.kv_linear(texts.states).unflatten(-1, (2, self._heads, -1)).transpose(1, 3).unbind(2)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=texts.shown)
        output: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return output


class Mlp(nn.Module):
    """Two linear layers with a GELU (tanh approximation) between them."""

    def __init__(self, inner: int, width: int, outer: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inner, width)
        self.fc2 = nn.Linear(width, outer)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., inner) to (..., outer)."""
        output: Tensor = self.fc2(functional.gelu(self.fc1(hidden), approximate="tanh"))
        return output


class Block(nn.Module):
    """Self-attention within frames or along time, attention to the text, and an MLP.

    Parameters
    ----------
    width, heads : int
    temporal : bool
        Whether self-attention is among the frames of one patch; else it is among the patches of one frame.
    """

    def __init__(self, width: int, heads: int, *, temporal: bool) -> None:
        super().__init__()
        self._temporal = temporal
        self.attn = SelfAttention(width, heads)
        self.cross_attn = CrossAttention(width, heads)
        self.mlp = Mlp(width, MLP_RATIO * width, width)
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(self, hidden: Tensor, texts: Texts, modulation: Tensor, rotation: Rotation) -> Tensor:
        """Transform hidden states of shape (R, frames, patches, width).

        `modulation` is (R, frames or 1, 6, width): shift, scale and gate of the attention, then of the MLP.
        """
        parts = (self.scale_shift_table + modulation).unsqueeze(2).unbind(3)  # (R, frames or 1, 1, width) each
        hidden = hidden + parts[2] * self._attend(modulate(hidden, parts[0], parts[1]), rotation)
        hidden = hidden + self.cross_attn(hidden.flatten(1, 2), texts).view_as(hidden)
        output: Tensor = hidden + parts[5] * self.mlp(modulate(hidden, parts[3], parts[4]))
        return output

    def _attend(self, hidden: Tensor, rotation: Rotation) -> Tensor:
        if self._temporal:
            by_patch = hidden.transpose(1, 2)
            mixed = self.attn(by_patch.flatten(0, 1), rotation)
            return cast(Tensor, mixed.view_as(by_patch).transpose(1, 2))
        return cast(Tensor, self.attn(hidden.flatten(0, 1), None).view_as(hidden))


def modulate(hidden: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise each token, then scale and shift it (adaptive layer norm, arXiv 2212.09748, section 3.2)."""
    normal = functional.layer_norm(hidden, hidden.shape[-1:], eps=NORM_EPS)
    return normal * (1 + scale) + shift
