"""The two trained parts of `latte_shapes`, its scheduler, and how they start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler, LatteTransformer3DModel
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

from shapes.batches import Batch
from shapes.render import FRAMES
from shapes.tokenizer import VOCABULARY

CAPTION_CHANNELS = 128
TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": CAPTION_CHANNELS,
    "d_kv": 32,
    "d_ff": 256,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
DENOISER: dict[str, Any] = {
    "sample_size": 20,
    "patch_size": 4,
    "in_channels": 4,
    "out_channels": 8,  # the standard layout: the second half, the variance, is never used
    "num_layers": 4,
    "num_attention_heads": 4,
    "attention_head_dim": 56,
    "cross_attention_dim": 224,
    "caption_channels": CAPTION_CHANNELS,
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "video_length": FRAMES,
}


class TextToVideo(nn.Module):
    """The text encoder, which is trained apart and frozen here, and the denoiser."""

    def __init__(self) -> None:
        super().__init__()
        self.text = T5EncoderModel(T5Config(**TEXT)).requires_grad_(False)
        self.denoiser = LatteTransformer3DModel(**DENOISER)
        _quiet_start(self.denoiser)

    def forward(self, noisy: Tensor, timestep: Tensor, batch: Batch) -> Tensor:
        """Predict the velocity, shape of `noisy`."""
        states = self.text(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        output = self.denoiser(noisy, timestep, states, encoder_attention_mask=batch.bias, return_dict=False)[0]
        velocity: Tensor = output.chunk(2, dim=1)[0]
        return velocity


def _quiet_start(denoiser: LatteTransformer3DModel) -> None:
    """Start near the identity (DiT, section 3.2): branches that write to the stream begin at zero."""
    nn.init.zeros_(denoiser.proj_out.weight)
    nn.init.zeros_(denoiser.proj_out.bias)
    nn.init.normal_(denoiser.adaln_single.linear.weight, std=0.02)
    for block in denoiser.transformer_blocks:
        nn.init.zeros_(block.attn2.to_out[0].weight)


def make_scheduler() -> DDIMScheduler:
    """Latte's linear betas; the model predicts the velocity (Salimans and Ho, 2022)."""
    return DDIMScheduler(
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type="v_prediction",
    )


def load_trained(weights: Path) -> TextToVideo:
    """Read both parts from a folder in the diffusers layout, in float32."""
    model = TextToVideo()
    model.text.load_state_dict(T5EncoderModel.from_pretrained(weights / "text_encoder").float().state_dict())
    denoiser = LatteTransformer3DModel.from_pretrained(weights / "transformer")
    model.denoiser.load_state_dict(denoiser.float().state_dict())
    return model
