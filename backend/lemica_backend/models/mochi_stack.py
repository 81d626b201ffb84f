"""Mochi's block stack as a function of plain tensors, and its attention for all rows at once."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from lemica_backend.blocks.stack import Range
from lemica_backend.models.attending import attending
from lemica_backend.models.two_stream_stack import Rope, TwoStreamStack, attend_over_both, heads_of


class MochiStack(TwoStreamStack):
    """Mochi's blocks.

    Parameters
    ----------
    net : MochiTransformer3DModel
    rope : Rope
        Each of shape (tokens, heads, half of a head's channels).
    text : Range
        Tokens of a text.
    dtype : torch.dtype
    """

    def __init__(self, net: Any, rope: Rope, text: Range, dtype: torch.dtype) -> None:
        width = net.config.num_attention_heads * net.config.attention_head_dim
        super().__init__(net.transformer_blocks, (width, net.config.pooled_projection_dim, width), rope, text, dtype)

    def for_export(self) -> AbstractContextManager[object]:
        """Hide the padding of texts by a mask: the pipeline cuts it off, row by row."""
        return attending((block.attn1 for block in self.blocks), _Attend())


class _Attend:
    """As diffusers' MochiAttnProcessor2_0 for what is shown; what padding gets, nobody looks at."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor,
        image_rotary_emb: Rope,
    ) -> tuple[Tensor, Tensor]:
        own = heads_of(attn, (attn.to_q, attn.to_k, attn.to_v), hidden_states)
        added = heads_of(attn, (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj), encoder_hidden_states)
        own[:2] = (_turn(each, *image_rotary_emb) for each in (attn.norm_q(own[0]), attn.norm_k(own[1])))
        added[:2] = attn.norm_added_q(added[0]), attn.norm_added_k(added[1])
        video, text = attend_over_both(own, added, attention_mask)
        return attn.to_out[0](video), attn.to_add_out(text) if hasattr(attn, "to_add_out") else text


def _turn(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring pairs of channels, (R, tokens, heads, channels), by their token's angles."""
    even, odd = values.unflatten(-1, (-1, 2)).float().unbind(-1)
    turned = even * cos - odd * sin, even * sin + odd * cos
    return torch.stack([each.to(values.dtype) for each in turned], dim=-1).flatten(-2)
