"""Random-weight pipelines of videos that have no adapter of their own."""

from diffusers import (
    AutoencoderKLCosmos,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLMagvit,
    AutoencoderKLWan,
    CosmosTextToWorldPipeline,
    CosmosTransformer3DModel,
    DPMSolverMultistepScheduler,
    EasyAnimatePipeline,
    EasyAnimateTransformer3DModel,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    Kandinsky5T2VPipeline,
    Kandinsky5Transformer3DModel,
    SanaVideoPipeline,
    SanaVideoTransformer3DModel,
)

from tests.tiny.parts import (
    VOCABULARY,
    WIDTH,
    byte_tokenizer,
    chat_tokenizer,
    cut,
    scaled,
    tiny_clip_text,
    tiny_qwen,
    tiny_t5,
)


def tiny_easyanimate():
    net = EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        patch_size=2,
        num_layers=2,
        mmdit_layers=1,  # as published, its last blocks have one set of weights for video and text
        time_embed_dim=8,
        text_embed_dim=WIDTH,
        time_position_encoding_type="3d_rope",
    )
    vae = AutoencoderKLMagvit(
        in_channels=3,
        down_block_types=("SpatialDownBlock3D", "SpatialTemporalDownBlock3D"),
        up_block_types=("SpatialUpBlock3D", "SpatialTemporalUpBlock3D"),
        block_out_channels=(8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        spatial_group_norm=False,
    )
    return EasyAnimatePipeline(
        vae=vae.eval(),
        text_encoder=tiny_qwen(),
        tokenizer=chat_tokenizer(256),
        transformer=scaled(net),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def tiny_sana_video():
    net = SanaVideoTransformer3DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=WIDTH,
        mlp_ratio=2.5,
        rope_max_seq_len=32,
    )
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    sampler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0)
    return SanaVideoPipeline(
        tokenizer=byte_tokenizer(300),
        text_encoder=tiny_qwen(),
        vae=vae.eval(),
        transformer=scaled(net),
        scheduler=sampler,
    )


def tiny_cosmos():
    """Leave out what judges its texts and videos; without it, pipelines make one when they are made."""
    net = CosmosTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        mlp_ratio=2,
        text_embed_dim=WIDTH,
        adaln_lora_dim=4,
        max_size=(4, 32, 32),
        concat_padding_mask=False,  # torchvision's resize, which is not installed here, would make it
    )
    vae = AutoencoderKLCosmos(
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=2,
        patch_size=4,
        patch_type="haar",
        scaling_factor=1.0,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    )
    sampler = EDMEulerScheduler(sigma_min=0.002, sigma_max=80, sigma_data=0.5, sigma_schedule="karras")
    pipeline = CosmosTextToWorldPipeline(
        text_encoder=tiny_t5(),
        tokenizer=byte_tokenizer(512),
        transformer=scaled(net),
        vae=vae.eval(),
        scheduler=sampler,
    )
    pipeline.register_modules(safety_checker=None)
    return pipeline


def tiny_kandinsky():
    """Its blocks get the video as one row of tokens, and what follows them gets it in its own shape."""
    bare = Kandinsky5T2VPipeline(*[None] * 7)
    words = cut(bare.prompt_template.partition("{}")[0], bare.prompt_template_encode_start_idx)
    net = Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=WIDTH,
        in_text_dim2=8,
        time_dim=16,
        out_visual_dim=4,
        patch_size=(1, 2, 2),
        model_dim=24,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 4, 4),
    )
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
    return Kandinsky5T2VPipeline(
        transformer=scaled(net),
        vae=vae.eval(),
        text_encoder=tiny_qwen(VOCABULARY + len(words)),
        tokenizer=byte_tokenizer(2000, template="$A", words=words),
        text_encoder_2=tiny_clip_text(),
        tokenizer_2=byte_tokenizer(77),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
    )
