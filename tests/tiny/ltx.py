"""Random-weight LTX-Video pipelines, with an autoencoder of 0.9 and one of 0.9.1, which takes a timestep."""

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)

from tests.tiny.parts import WIDTH, byte_tokenizer, scaled, tiny_t5

SIZE = {"height": 32, "width": 64, "num_frames": 9}


def tiny_ltx(*, timestep_conditioning=False):
    net = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=2,
        caption_channels=WIDTH,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )
    return LTXPipeline(
        tokenizer=byte_tokenizer(128),
        text_encoder=tiny_t5(),
        vae=_vae(timestep_conditioning),
        transformer=scaled(net),
        scheduler=scheduler,
    )


def tiny_ltx_091():
    return tiny_ltx(timestep_conditioning=True)


def _vae(timestep_conditioning):
    scaling = (True, True, True, False)
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=scaling,
        decoder_spatio_temporal_scaling=scaling,
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=timestep_conditioning,
        patch_size=1,
        patch_size_t=1,
    )
    vae.latents_mean.copy_(torch.linspace(-0.2, 0.3, 8))
    vae.latents_std.copy_(torch.linspace(0.8, 1.3, 8))
    return vae.eval()
