"""The block stacks of HunyuanVideo and HunyuanVideo 1.5 as functions of plain tensors."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from lemica_backend.blocks.stack import Range
from lemica_backend.models.attending import attending
from lemica_backend.models.two_stream_stack import Rope, TwoStreamStack, attend_over_both, heads_of, over_both


class HunyuanVideoStack(TwoStreamStack):
    """HunyuanVideo's blocks of two streams, and then those of one.

    Parameters
    ----------
    net : HunyuanVideoTransformer3DModel
    rope : Rope
    text : Range
        Tokens of a text.
    dtype : torch.dtype
    """

    def __init__(self, net: Any, rope: Rope, text: Range, dtype: torch.dtype) -> None:
        blocks = (*net.transformer_blocks, *net.single_transformer_blocks)
        super().__init__(blocks, (_width(net),) * 3, rope, text, dtype)

    def mask(self, hidden: Tensor, shown: Tensor) -> Tensor:
        """Return the keys that are no padding."""
        return over_both(hidden, shown)


class HunyuanVideo15Stack(TwoStreamStack):
    """HunyuanVideo 1.5's blocks; parameters as of `HunyuanVideoStack`."""

    def __init__(self, net: Any, rope: Rope, text: Range, dtype: torch.dtype) -> None:
        super().__init__(net.transformer_blocks, (_width(net),) * 3, rope, text, dtype)

    def for_export(self) -> AbstractContextManager[object]:
        """Leave out that padding sees nothing: of a row without any key, ONNX makes what is no number."""
        return attending((block.attn for block in self.blocks), _Attend())


class _Attend:
    """As diffusers' HunyuanVideo15AttnProcessor2_0 for what is shown; what padding gets, nobody looks at."""

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
        own[:2] = (
            apply_rotary_emb(each, image_rotary_emb, sequence_dim=1)
            for each in (attn.norm_q(own[0]), attn.norm_k(own[1]))
        )
        added[:2] = attn.norm_added_q(added[0]), attn.norm_added_k(added[1])
        video, text = attend_over_both(own, added, attention_mask)
        return attn.to_out[0](video), attn.to_add_out(text)


def _width(net: Any) -> int:
    width: int = net.config.num_attention_heads * net.config.attention_head_dim
    return width
