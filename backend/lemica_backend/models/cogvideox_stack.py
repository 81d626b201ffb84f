"""CogVideoX's block stack as a function of plain tensors, and its attention without writes into parts of tensors."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from lemica_backend.blocks.stack import ROWS, TEXT, TOKENS, BlockStack, Range, StackInput
from lemica_backend.models.attending import attending

Rope = tuple[Tensor, Tensor]  # cosines and sines, each of shape (tokens, channels of a head)


class CogVideoXStack(BlockStack):
    """The blocks of CogVideoX, on the video's stream and the text's; only the video's comes out.

    Parameters
    ----------
    net : CogVideoXTransformer3DModel
    rope : Rope or None
        None for models that add their positions to the hidden states.
    tokens : int
        Of a video.
    dtype : torch.dtype
    """

    def __init__(self, net: Any, rope: Rope | None, tokens: int, dtype: torch.dtype) -> None:
        config = net.config
        width, most = config.num_attention_heads * config.attention_head_dim, config.max_text_seq_length
        inputs = [
            StackInput("hidden", (ROWS, TOKENS, width), dtype),
            StackInput("text", (ROWS, TEXT, width), dtype),
            StackInput("embedding", (ROWS, config.time_embed_dim), dtype),
        ]
        if rope is not None:
            inputs += [StackInput(name, (TOKENS, rope[0].shape[1]), rope[0].dtype) for name in ("cos", "sin")]
        super().__init__(inputs, {TOKENS: Range(tokens, tokens), TEXT: Range(most, most)})
        self.blocks = net.transformer_blocks

    def forward(self, *tensors: Tensor | None) -> Tensor:
        """Run the blocks on both streams, and return the video's."""
        hidden, text, embedding, *rope = tensors
        assert hidden is not None
        for block in self.blocks:
            hidden, text = block(
                hidden_states=hidden, encoder_hidden_states=text, temb=embedding, image_rotary_emb=tuple(rope) or None
            )
        return hidden

    def for_export(self) -> AbstractContextManager[object]:
        """Turn queries and keys without writing a part of a tensor, which exports as a scatter."""
        return attending((block.attn1 for block in self.blocks), _Attend())


class _Attend:
    """The same arithmetic as diffusers' CogVideoXAttnProcessor2_0, as a function of whole tensors."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rope | None = None,
    ) -> tuple[Tensor, Tensor]:
        lengths = [encoder_hidden_states.shape[1], hidden_states.shape[1]]
        both = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        query, key, value = (
            project(both).unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        if image_rotary_emb is not None:
            query, key = (_turn_video(each, lengths, image_rotary_emb) for each in (query, key))
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        text, video = attn.to_out[0](mixed.transpose(1, 2).flatten(2)).split(lengths, dim=1)
        return video, text


def _turn_video(values: Tensor, lengths: list[int], rope: Rope) -> Tensor:
    """Turn the video's part of (R, heads, text and video tokens, channels)."""
    text, video = values.split(lengths, dim=2)
    return torch.cat([text, apply_rotary_emb(video, rope)], dim=2)
