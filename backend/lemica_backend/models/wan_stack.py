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

MAX_TOKENS = 512  # WanPipeline.__call__, and WanAttnProcessor where an image's states come before a text's


class WanStack(BlockStack):
    """One of Wan's transformers: the projections of the text and of the image, and the blocks.

    Parameters
    ----------
    net : WanTransformer3DModel
    rope : sequence of Tensor
        Cosines and sines of the positions, each of shape (1, tokens, 1, channels of a head).
    text : Range
        Tokens of a text.
    dtype : torch.dtype
    image : int
        Tokens of an image that the blocks attend to beside the text; 0 for none.
    times_tokens : bool
        Whether each token has a timestep of its own.
    """

    def __init__(
        self,
        net: Any,
        rope: Sequence[Tensor],
        text: Range,
        dtype: torch.dtype,
        *,
        image: int = 0,
        times_tokens: bool = False,
    ) -> None:
        config, (tokens, head) = net.config, (rope[0].shape[1], rope[0].shape[3])
        width = config.num_attention_heads * config.attention_head_dim
        inputs = [
            StackInput("hidden", (ROWS, TOKENS, width), dtype),
            StackInput("text", (ROWS, MAX_TOKENS if image else TEXT, config.text_dim), dtype),
            StackInput("modulation", (ROWS, TOKENS, 6, width) if times_tokens else (ROWS, 6, width), dtype),
            *(StackInput(name, (1, TOKENS, 1, head), rope[0].dtype) for name in ("cos", "sin")),
        ]
        if image:
            inputs.append(StackInput("image", (ROWS, image, config.image_dim), dtype))
        super().__init__(inputs, {TOKENS: Range(tokens, tokens), TEXT: text})
        self.embed_text, self.blocks = net.condition_embedder.text_embedder, net.blocks
        self.embed_image = net.condition_embedder.image_embedder

    def forward(self, *tensors: Tensor | None) -> Tensor:
        """Run the blocks; texts have one length."""
        hidden, text, modulation, cos, sin, *image = tensors
        assert hidden is not None
        states = torch.cat([*(self.embed_image(each) for each in image), self.embed_text(text)], dim=1)
        for block in self.blocks:
            hidden = block(hidden, states, modulation, (cos, sin))
        return hidden

    @property
    def token_attentions(self) -> tuple[Any, ...]:
        """The attention of each block that is not over the text."""
        return tuple(block.attn1 for block in self.blocks)

    def for_export(self) -> AbstractContextManager[object]:
        """Turn queries and keys without writing every other channel of a tensor, which exports as a scatter."""
        return attending(chain.from_iterable((block.attn1, block.attn2) for block in self.blocks), _Attend())


class _Attend(WanAttnProcessor):  # type: ignore[misc]  # diffusers has no types
    """The same arithmetic as its parent, as a function of whole tensors."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        states = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        image, states = _parted(attn, states)
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(states))
        query, key, value = (each.unflatten(2, (attn.heads, -1)) for each in (query, key, attn.to_v(states)))
        if rotary_emb is not None:
            query, key = _turn(query, *rotary_emb), _turn(key, *rotary_emb)
        mixed = _mix(query, key, value)
        if image is not None:
            key, value = attn.norm_added_k(attn.add_k_proj(image)), attn.add_v_proj(image)
            mixed = mixed + _mix(query, *(each.unflatten(2, (attn.heads, -1)) for each in (key, value)))
        output: Tensor = attn.to_out[0](mixed)
        return output


def _parted(attn: Any, states: Tensor) -> tuple[Tensor | None, Tensor]:
    """Return the image's states and the text's, which come after."""
    if attn.add_k_proj is None:
        return None, states
    image, text = states.split([states.shape[1] - MAX_TOKENS, MAX_TOKENS], dim=1)
    return image, text


def _mix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the attention of (R, tokens, heads, channels), the heads side by side."""
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).flatten(2, 3).type_as(query)


def _turn(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring pairs of channels, (R, tokens, heads, channels), by their token's angles."""
    even, odd = values.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).type_as(values)
