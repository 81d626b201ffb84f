"""Latte's block stack as a function of plain tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lemica_backend.blocks.stack import ROWS, TEXT, TOKENS, BlockStack, Range, StackInput
from lemica_backend.models.attending import attending


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
        self.frames: int = net.config.video_length
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

    @contextmanager
    def for_export(self) -> Iterator[None]:
        """Let the frames of a row share its text's keys and values."""
        own = [block.attn1 for block in (*self.spatial, *self.temporal)]
        shared = [block.attn2 for block in self.spatial]
        with attending(own, _Attend()), attending(shared, _AttendText(self.frames)):
            yield


class _Attend:
    """The same arithmetic as diffusers' AttnProcessor2_0; scores are scaled in the query, where engines fuse that."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        states = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            each.unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for each in (attn.to_q(hidden_states) * attn.scale, attn.to_k(states), attn.to_v(states))
        )
        bias = None if attention_mask is None else attention_mask[:, None]  # (R, 1, 1, L)
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
        output: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return output


class _AttendText(_Attend):
    """Attends to the text with all tokens of a row at once: `LatteStack.forward` gives each frame the same text.

    Parameters
    ----------
    frames : int
    """

    def __init__(self, frames: int) -> None:
        self._frames = frames

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        rows, text, bias = (
            None if each is None else each.unflatten(0, (-1, self._frames))
            for each in (hidden_states, encoder_hidden_states, attention_mask)
        )
        assert rows is not None
        assert text is not None
        first = None if bias is None else bias[:, 0]
        mixed = super().__call__(attn, rows.flatten(1, 2), text[:, 0], first)
        by_frame: Tensor = mixed.unflatten(1, rows.shape[1:3]).flatten(0, 1)
        return by_frame


def _repeat(tensor: Tensor, times: int) -> Tensor:
    """Return each row so many times; `repeat_interleave` exports to ONNX only with sizes that are fixed."""
    return tensor.unsqueeze(1).expand(-1, times, *tensor.shape[1:]).flatten(0, 1)
