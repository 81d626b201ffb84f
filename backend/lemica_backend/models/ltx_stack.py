"""LTX-Video's block stack as a function of plain tensors, and its attention with a mask that is not repeated."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import torch
from diffusers.models.transformers.transformer_ltx import LTXVideoAttnProcessor, apply_rotary_emb
from torch import Tensor

from lemica_backend.blocks.stack import ROWS, TEXT, TOKENS, BlockStack, Range, StackInput
from lemica_backend.models.attending import attending


class LtxStack(BlockStack):
    """LTX-Video's blocks.

    Parameters
    ----------
    net : LTXVideoTransformer3DModel
    rope : sequence of Tensor
        Cosines and sines of the positions, each of shape (1, tokens, width).
    text : Range
        Tokens of a text.
    dtype : torch.dtype
    """

    def __init__(self, net: Any, rope: Sequence[Tensor], text: Range, dtype: torch.dtype) -> None:
        _, tokens, width = rope[0].shape
        inputs = (
            StackInput("hidden", (ROWS, TOKENS, width), dtype),
            StackInput("text", (ROWS, TEXT, width), dtype),
            StackInput("bias", (ROWS, 1, TEXT), dtype),
            StackInput("modulation", (ROWS, 1, 6 * width), dtype),
            *(StackInput(name, (1, TOKENS, width), rope[0].dtype) for name in ("cos", "sin")),
        )
        super().__init__(inputs, {TOKENS: Range(tokens, tokens), TEXT: text})
        self.blocks = net.transformer_blocks

    def forward(self, *tensors: Tensor | None) -> Tensor:
        """Run the blocks; the bias hides the padding of texts."""
        hidden, text, bias, modulation, cos, sin = tensors
        assert hidden is not None
        for block in self.blocks:
            hidden = block(
                hidden_states=hidden,
                encoder_hidden_states=text,
                temb=modulation,
                image_rotary_emb=(cos, sin),
                encoder_attention_mask=bias,
            )
        return hidden

    @property
    def token_attentions(self) -> tuple[Any, ...]:
        """The attention of each block that is not over the text."""
        return tuple(block.attn1 for block in self.blocks)

    def for_export(self) -> AbstractContextManager[object]:
        """Broadcast the bias over heads: repeating it exports to ONNX only with sizes that are fixed."""
        return attending(chain.from_iterable((block.attn1, block.attn2) for block in self.blocks), _Attend())


class _Attend(LTXVideoAttnProcessor):  # type: ignore[misc]  # diffusers has no types
    """The same arithmetic as its parent."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        states = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(states))
        if image_rotary_emb is not None:
            query, key = apply_rotary_emb(query, image_rotary_emb), apply_rotary_emb(key, image_rotary_emb)
        query, key, value = (
            each.unflatten(2, (attn.heads, -1)).transpose(1, 2) for each in (query, key, attn.to_v(states))
        )
        bias = None if attention_mask is None else attention_mask[:, None]  # (R, 1, 1, L)
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        output: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return output
