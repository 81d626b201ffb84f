"""Latte's block stack as a function of plain tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lemica_backend.blocks.stack import ROWS, TEXT, TOKENS, BlockStack, Range, StackInput


class LatteStack(BlockStack):
    """Latte's spatial and temporal blocks, in turn.

    Parameters
    ----------
    net : LatteTransformer3DModel
    patches : int
        Of a frame.
    text : Range
        Tokens of a text.
    dtype : torch.dtype
    """

    def __init__(self, net: Any, patches: int, text: Range, dtype: torch.dtype) -> None:
        width = net.config.num_attention_heads * net.config.attention_head_dim
        inputs = (
            StackInput("hidden", (ROWS, net.config.video_length, TOKENS, width), dtype),
            StackInput("text", (ROWS, TEXT, width), dtype),
            StackInput("bias", (ROWS, 1, TEXT), dtype, default=0.0),
            StackInput("modulation", (ROWS, 6 * width), dtype),
        )
        super().__init__(inputs, {TOKENS: Range(patches, patches), TEXT: text})
        self.spatial, self.temporal = net.transformer_blocks, net.temporal_transformer_blocks
        self.register_buffer("places", net.temp_pos_embed, persistent=False)

    def forward(self, *tensors: Tensor | None) -> Tensor:
        """Run the blocks; the bias is None where no text is padded."""
        hidden, text, bias, modulation = tensors
        assert hidden is not None
        assert text is not None
        assert modulation is not None
        rows, frames, patches, _ = hidden.shape
        text, by_frame, by_patch = _repeat(text, frames), _repeat(modulation, frames), _repeat(modulation, patches)
        bias = None if bias is None else _repeat(bias, frames)
        hidden = hidden.flatten(0, 1)  # (R * F, N, D)
        for index, (spatial, temporal) in enumerate(zip(self.spatial, self.temporal, strict=True)):
            hidden = spatial(hidden, None, text, bias, by_frame, None, None)
            hidden = hidden.unflatten(0, (rows, frames)).transpose(1, 2).flatten(0, 1)  # (R * N, F, D)
            if index == 0:
                hidden = hidden + self.places.to(hidden.dtype)
            hidden = temporal(hidden, None, None, None, by_patch, None, None)
            hidden = hidden.unflatten(0, (rows, patches)).transpose(1, 2).flatten(0, 1)
        output: Tensor = hidden.unflatten(0, (rows, frames))
        return output


def _repeat(tensor: Tensor, times: int) -> Tensor:
    """Return each row so many times; `repeat_interleave` exports to ONNX only with sizes that are fixed."""
    return tensor.unsqueeze(1).expand(-1, times, *tensor.shape[1:]).flatten(0, 1)
