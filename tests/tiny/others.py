"""Random-weight pipelines that have no adapter of their own: video and image models."""

from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    AutoencoderKLAllegro,
    AutoencoderKLWan,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
)

from tests.tiny.parts import WIDTH, byte_tokenizer, image_vae, scaled, tiny_clip_text, tiny_t5, tiny_umt5

VIDEO = {"height": 32, "width": 48, "num_frames": 5}
IMAGE = {"height": 32, "width": 48}


def tiny_skyreels():
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    net = SkyReelsV2Transformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=64,
    )
    sampler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0)
    return SkyReelsV2Pipeline(
        tokenizer=byte_tokenizer(512),
        text_encoder=tiny_umt5(),
        vae=vae.eval(),
        transformer=scaled(net),
        scheduler=sampler,
    )


def tiny_flux():
    net = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=12,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=8,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 4),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=image_vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1),
        text_encoder=tiny_clip_text(),
        tokenizer=byte_tokenizer(77),
        text_encoder_2=tiny_t5(),
        tokenizer_2=byte_tokenizer(64),
        transformer=scaled(net),
    )


def pixart_sigma():
    net = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=16,
        sample_size=16,
        caption_channels=WIDTH,
        use_additional_conditions=False,
    )
    return PixArtSigmaPipeline(
        tokenizer=byte_tokenizer(300),
        text_encoder=tiny_t5(),
        vae=image_vae(),
        transformer=scaled(net),
        scheduler=DDIMScheduler(),
    )


def allegro():
    net = AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        cross_attention_dim=48,
        sample_width=8,
        sample_height=8,
        sample_frames=8,
        caption_channels=WIDTH,
    )
    vae = AutoencoderKLAllegro(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    return AllegroPipeline(
        tokenizer=byte_tokenizer(512),
        text_encoder=tiny_t5(),
        vae=vae.eval(),
        transformer=scaled(net),
        scheduler=DDIMScheduler(),
    )
