"""The small STDiT3 beside its frozen text encoder, and how it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5EncoderModel

from lemica_backend.models.open_sora.transformer import STDiT3
from shapes.batches import Batch
from shapes.model import CAPTION_CHANNELS
from shapes.render import FRAMES, SIZE
from shapes.tokenizer import MAX_TOKENS

FPS = 8.0
IMAGE_FPS = 120.0  # stands for a single frame, as in Open-Sora
DENOISER: dict[str, Any] = {
    "caption_channels": CAPTION_CHANNELS,
    "model_max_length": MAX_TOKENS,
    "depth": 4,
    "hidden_size": 224,
    "num_heads": 4,
    "patch_size": 4,
    "input_sq_size": SIZE,
}


class TextToVideo(nn.Module):
    """The text encoder, which is trained apart and frozen here, and the denoiser.

    Parameters
    ----------
    text : T5EncoderModel
    **changes
        Of `DENOISER`.
    """

    def __init__(self, text: T5EncoderModel, **changes: Any) -> None:
        super().__init__()
        self.text = text.requires_grad_(False)
        self.denoiser = STDiT3(**DENOISER | changes)
        _quiet_start(self.denoiser)

    def forward(self, noisy: Tensor, timestep: Tensor, batch: Batch) -> Tensor:
        """Predict the velocity from noise to clip, shape of `noisy`; timesteps are 0 to 1000."""
        states = self.text(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        shown = _caption_mask(batch, frames=noisy.shape[2])
        fps = torch.full_like(timestep, FPS if noisy.shape[2] == FRAMES else IMAGE_FPS)
        output: Tensor = self.denoiser(
            noisy, timestep, self._drop(states, batch), fps=fps, height=SIZE, width=SIZE, text_mask=shown
        )
        return output[:, : noisy.shape[1]]

    def _drop(self, states: Tensor, batch: Batch) -> Tensor:
        """Put the null text in place of dropped captions, which have one token: the end."""
        dropped = batch.mask.sum(1) == 1
        return torch.where(dropped[:, None, None], self.denoiser.null_text(states.shape[1]).to(states.dtype), states)


def _caption_mask(batch: Batch, *, frames: int) -> Tensor:
    """Return which tokens the captions have, (B, L); dropped ones keep theirs, as the null text does in sampling."""
    return batch.bias[::frames, 0] == 0


def _quiet_start(denoiser: STDiT3) -> None:
    """Start near the identity (DiT, section 3.2): branches that write to the stream begin at zero."""
    nn.init.zeros_(denoiser.final_layer.linear.weight)
    nn.init.zeros_(denoiser.final_layer.linear.bias)
    nn.init.normal_(denoiser.t_block.get_parameter("1.weight"), std=0.02)
    for block in (*denoiser.spatial_blocks, *denoiser.temporal_blocks):
        nn.init.zeros_(block.cross_attn.proj.weight)


def load_text_encoder(weights: Path) -> T5EncoderModel:
    """Read the text encoder of `latte_shapes`, in float32."""
    return T5EncoderModel.from_pretrained(weights / "text_encoder", local_files_only=True).float().eval()
