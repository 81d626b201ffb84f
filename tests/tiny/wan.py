"""Random-weight Wan pipelines: 2.1 with both of its samplers, 2.2 with two transformers, and those of images."""

from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)

from tests.tiny.parts import WIDTH, byte_tokenizer, scaled, tiny_clip, tiny_umt5

SIZE = {"height": 32, "width": 48, "num_frames": 5}
SIZE_5B = {"height": 64, "width": 96, "num_frames": 5}


def unipc():
    """The multistep sampler that Wan is published with."""
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def euler():
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


_OF_IMAGES = {"in_channels": 16 + 4 + 16}  # noise, mask, the image's latents


def _transformer(seed, **more):
    sizes = {"in_channels": 16} | more
    net = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        out_channels=16,
        text_dim=WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
        **sizes,
    )
    return scaled(net, seed)


def tiny_wan(scheduler=None, *, experts=1, **config):
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    return WanPipeline(
        tokenizer=byte_tokenizer(512),
        text_encoder=tiny_umt5(),
        vae=vae.eval(),
        transformer=_transformer(1),
        transformer_2=_transformer(2) if experts == 2 else None,
        scheduler=scheduler or unipc(),
        **config,
    )


def tiny_wan_euler():
    return tiny_wan(euler())


def tiny_wan_22_5b():
    """It is given one timestep a token, and its autoencoder cuts frames into patches."""
    pipeline = tiny_wan(expand_timesteps=True)
    vae = AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=8,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_spatial=16,
    )
    return WanPipeline(**pipeline.components | {"vae": vae.eval()}, expand_timesteps=True)


def tiny_wan_22():
    """At six steps, the second transformer takes over at step 3."""
    return tiny_wan(experts=2, boundary_ratio=0.8)


def of_images(pipeline, **parts):
    return WanImageToVideoPipeline(**pipeline.components | parts)


def tiny_wan_i2v(**more):
    """2.1: the blocks attend to the image, too."""
    encoder, processor = tiny_clip()
    net = _transformer(1, **_OF_IMAGES, image_dim=WIDTH, added_kv_proj_dim=24, **more)
    return of_images(tiny_wan(), transformer=net, image_encoder=encoder, image_processor=processor)


def tiny_wan_22_i2v():
    """Two transformers, and no encoder of images but the autoencoder."""
    nets = {"transformer": _transformer(1, **_OF_IMAGES), "transformer_2": _transformer(2, **_OF_IMAGES)}
    return WanImageToVideoPipeline(**tiny_wan().components | nets, boundary_ratio=0.8)


def tiny_wan_22_5b_i2v():
    """The weights of text to video."""
    return WanImageToVideoPipeline(**tiny_wan_22_5b().components, expand_timesteps=True)


def tiny_wan_of_image_weights():
    """A mistake: the transformer of images in the pipeline of text."""
    return WanPipeline(**tiny_wan().components | {"transformer": _transformer(1, **_OF_IMAGES)})
