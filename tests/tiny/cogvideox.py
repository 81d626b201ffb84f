"""Random-weight CogVideoX pipelines: 2b (DDIM), 5b (DPM, rotary positions), 1.5 (patches over time); of images."""

from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)

from tests.tiny.parts import WIDTH, byte_tokenizer, scaled, tiny_t5

SIZE = {"height": 32, "width": 48, "num_frames": 9}
TOKENS = 48
_NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def _pipeline(scheduler, **net):
    sizes = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 16,
        "text_embed_dim": WIDTH,
        "num_layers": 2,
        "sample_width": 6,
        "sample_height": 4,
        "sample_frames": 9,
        "max_text_seq_length": TOKENS,
    }
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(4,) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    return CogVideoXPipeline(
        tokenizer=byte_tokenizer(TOKENS),
        text_encoder=tiny_t5(),
        vae=vae.eval(),
        transformer=scaled(CogVideoXTransformer3DModel(**sizes | net)),
        scheduler=scheduler,
    )


def tiny_2b(**net):
    return _pipeline(CogVideoXDDIMScheduler(**_NOISE, snr_shift_scale=3.0), **net)


def tiny_5b():
    return _pipeline(CogVideoXDPMScheduler(**_NOISE, snr_shift_scale=1.0), use_rotary_positional_embeddings=True)


def tiny_15():
    """Its three latent frames are filled up to four."""
    scheduler = CogVideoXDPMScheduler(**_NOISE, snr_shift_scale=1.0)
    return _pipeline(scheduler, use_rotary_positional_embeddings=True, patch_size_t=2)


def tiny_5b_i2v():
    """Noise and the image's latents; positions are learned and rotary, for one size."""
    scheduler = CogVideoXDPMScheduler(**_NOISE, snr_shift_scale=1.0)
    positions = {"use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": True}
    pipeline = _pipeline(scheduler, in_channels=8, **positions)
    pipeline.transformer.float()  # fresh positions are in float64
    return of_images(pipeline)


def tiny_15_i2v():
    """It is told by what the image is offset in time, too."""
    scheduler = CogVideoXDDIMScheduler(**_NOISE, snr_shift_scale=1.0)
    more = {"patch_size_t": 2, "ofs_embed_dim": 16}
    return of_images(_pipeline(scheduler, use_rotary_positional_embeddings=True, in_channels=8, **more))


def of_images(pipeline):
    return CogVideoXImageToVideoPipeline(**pipeline.components)
