"""Blocks that carry the video's stream and the text's, with the padding of texts hidden from both.

So are the block stacks of HunyuanVideo, HunyuanVideo 1.5 and Mochi.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lemica_backend.blocks.stack import ROWS, TEXT, TOKENS, BlockStack, Range, StackInput

Rope = tuple[Tensor, Tensor]  # cosines and sines of the positions, tokens first


class TwoStreamStack(BlockStack):
    """Blocks on both streams, of which only the video's comes out.

    Parameters
    ----------
    blocks : sequence of nn.Module
    widths : tuple of int
        Of the video's stream, of the text's, and of the embedding.
    rope : Rope
    text : Range
        Tokens of a text.
    dtype : torch.dtype
    """

    def __init__(
        self, blocks: Sequence[Any], widths: tuple[int, int, int], rope: Rope, text: Range, dtype: torch.dtype
    ) -> None:
        tokens, *rest = rope[0].shape
        video_width, text_width, embedding_width = widths
        inputs = (
            StackInput("hidden", (ROWS, TOKENS, video_width), dtype),
            StackInput("text", (ROWS, TEXT, text_width), dtype),
            StackInput("shown", (ROWS, TEXT), torch.bool),
            StackInput("embedding", (ROWS, embedding_width), dtype),
            *(StackInput(name, (TOKENS, *rest), rope[0].dtype) for name in ("cos", "sin")),
        )
        super().__init__(inputs, {TOKENS: Range(tokens, tokens), TEXT: text})
        self.blocks = torch.nn.ModuleList(blocks)

    def forward(self, *tensors: Tensor | None) -> Tensor:
        """Run the blocks; `shown` says which tokens of the texts are no padding."""
        hidden, text, shown, embedding, cos, sin = tensors
        assert hidden is not None
        assert shown is not None
        mask = self.mask(hidden, shown)
        for block in self.blocks:
            hidden, text = block(hidden, text, embedding, mask, (cos, sin))
        return hidden

    def mask(self, hidden: Tensor, shown: Tensor) -> Tensor:
        """Return what the blocks take for a mask."""
        return shown


def over_both(hidden: Tensor, shown: Tensor) -> Tensor:
    """Return a mask of the keys of both streams, shape (R, 1, 1, video and text tokens)."""
    return torch.cat([shown.new_ones(hidden.shape[:2]), shown], dim=1)[:, None, None]


def attend_over_both(own: Sequence[Tensor], added: Sequence[Tensor], shown: Tensor) -> tuple[Tensor, Tensor]:
    """Let both streams look at both.

    Parameters
    ----------
    own, added : sequence of Tensor
        Queries, keys and values of the video and of the text, each of shape (R, tokens, heads, channels).
    shown : Tensor, shape (R, text tokens)
        Which tokens of the text are no padding; what padding itself gets means nothing.

    Returns
    -------
    tuple of Tensor
        For the video and for the text, each of shape (R, tokens, heads * channels).
    """
    query, key, value = (torch.cat(pair, dim=1).transpose(1, 2) for pair in zip(own, added, strict=True))
    mask = over_both(own[0], shown)
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    video, text = mixed.transpose(1, 2).flatten(2).split([own[0].shape[1], added[0].shape[1]], dim=1)
    return video, text


def heads_of(attn: Any, projections: Sequence[Any], stream: Tensor) -> list[Tensor]:
    """Return a stream's projections, each of shape (R, tokens, heads, channels)."""
    return [project(stream).unflatten(2, (attn.heads, -1)) for project in projections]
