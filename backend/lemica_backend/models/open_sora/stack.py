"""Open-Sora's block stack as a function of plain tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from lemica_backend.blocks.stack import ROWS, TEXT, TOKENS, BlockStack, Range, StackInput
from lemica_backend.models.open_sora.layers import Texts
from lemica_backend.models.open_sora.transformer import STDiT3


class OpenSoraStack(BlockStack):
    """The spatial and temporal blocks of STDiT3, in turn.

    Parameters
    ----------
    net : STDiT3
    frames : int
        Of the latents.
    patches : int
        Of a frame.
    dtype : torch.dtype
    """

    def __init__(self, net: STDiT3, frames: int, patches: int, dtype: torch.dtype) -> None:
        width = net.config.hidden_size
        inputs = (
            StackInput("hidden", (ROWS, frames, TOKENS, width), dtype),
            StackInput("text", (ROWS, TEXT, width), dtype),
            StackInput("shown", (ROWS, 1, 1, TEXT), torch.bool, default=True),
            StackInput("modulation", (ROWS, 1, 6, width), dtype),
        )
        text = Range(1, net.config.model_max_length)
        super().__init__(inputs, {TOKENS: Range(patches, patches), TEXT: text})
        self.net = net

    def forward(self, *tensors: Tensor | None) -> Tensor:
        """Run the blocks; `shown` is None where no text is padded."""
        hidden, text, shown, modulation = tensors
        assert hidden is not None
        assert text is not None
        assert modulation is not None
        return self.net.transform(hidden, Texts(text, shown), modulation)
