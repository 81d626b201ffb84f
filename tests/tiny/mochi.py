"""A random-weight Mochi pipeline."""

from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel

from tests.tiny.parts import WIDTH, byte_tokenizer, scaled, tiny_t5

SIZE = {"height": 32, "width": 48, "num_frames": 13}


def tiny_mochi(**config):
    net = MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
    )
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5,
        add_attention_block=(False,) * 5,
    )
    return MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=vae.eval(),
        text_encoder=tiny_t5(),
        tokenizer=byte_tokenizer(256),
        transformer=scaled(net),
        **config,
    )


def tiny_mochi_zeros():
    """An empty prompt is no tokens at all."""
    return tiny_mochi(force_zeros_for_empty_prompt=True)
