"""Random-weight Wan pipelines: 2.1 with both of its samplers, and 2.2 with two transformers."""

from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)

from tests.tiny.parts import WIDTH, byte_tokenizer, scaled, tiny_umt5

SIZE = {"height": 32, "width": 48, "num_frames": 5}
SIZE_5B = {"height": 64, "width": 96, "num_frames": 5}


def unipc():
    """The multistep sampler that Wan is published with."""
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def euler():
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def _transformer(seed):
    net = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
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
