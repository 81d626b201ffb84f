"""Wan's block stack as a function of plain tensors, and its attention without writes into parts of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor

from lemica_backend.blocks.stack import ROWS, TEXT, TOKENS, BlockStack, Range, StackInput
from lemica_backend.models.attending import attending


class WanStack(BlockStack):
    """One of Wan's transformers: the projection of the text, and the blocks.

    Parameters
    ----------
    net : WanTransformer3DModel
    rope : sequence of Tensor
        Cosines and sines of the positions, each of shape (1, tokens, 1, channels of a head).
    text : Range
        Tokens of a text.
    dtype : torch.dtype
    """

    def __init__(self, net: Any, rope: Sequence[Tensor], text: Range, dtype: torch.dtype) -> None:
        config, (tokens, head) = net.config, (rope[0].shape[1], rope[0].shape[3])
        width = config.num_attention_heads * config.attention_head_dim
        inputs = (
            StackInput("hidden", (ROWS, TOKENS, width), dtype),
            StackInput("text", (ROWS, TEXT, config.text_dim), dtype),
            StackInput("modulation", (ROWS, 6, width), dtype),
            *(StackInput(name, (1, TOKENS, 1, head), rope[0].dtype) for name in ("cos", "sin")),
        )
        super().__init__(inputs, {TOKENS: Range(tokens, tokens), TEXT: text})
        self.embed_text, self.blocks = net.condition_embedder.text_embedder, net.blocks

    def forward(self, *tensors: Tensor | None) -> Tensor:
        """Run the blocks; texts have one length."""
        hidden, text, modulation, cos, sin = tensors
        assert hidden is not None
        states = self.embed_text(text)
        for block in self.blocks:
            hidden = block(hidden, states, modulation, (cos, sin))
        return hidden

    def for_export(self) -> AbstractContextManager[object]:
        """Turn queries and keys without writing every other channel of a tensor, which exports as a scatter."""
        return attending(chain.from_iterable((block.attn1, block.attn2) for block in self.blocks), _Attend())


class _Attend(WanAttnProcessor):  # type: ignore[misc]  # diffusers has no types
    """The same arithmetic as its parent for text to video, as a function of whole tensors."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        states = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(states))
        query, key, value = (each.unflatten(2, (attn.heads, -1)) for each in (query, key, attn.to_v(states)))
        if rotary_emb is not None:
            query, key = _turn(query, *rotary_emb), _turn(key, *rotary_emb)
        heads = (each.transpose(1, 2) for each in (query, key, value))
        mixed = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2, 3)
        output: Tensor = attn.to_out[0](mixed.type_as(query))
        return output


def _turn(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring pairs of channels, (R, tokens, heads, channels), by their token's angles."""
    even, odd = values.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).type_as(values)
