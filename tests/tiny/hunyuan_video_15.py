"""A random-weight HunyuanVideo 1.5 pipeline, whose tokenizer gives the real chat template its real 108 tokens."""

import inspect

from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)

from tests.tiny.family import Tiny
from tests.tiny.parts import VOCABULARY, WIDTH, byte_tokenizer, chat_tokenizer, cut, scaled, tiny_qwen, tiny_t5

_BEFORE, _AFTER = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
_TEMPLATE_TOKENS = 108


def tiny_hunyuan_video_15(kind=ClassifierFreeGuidance, **guider):
    encode = inspect.signature(HunyuanVideo15Pipeline._get_mllm_prompt_embeds)
    words = [*cut(_BEFORE.format(encode.parameters["system_message"].default), _TEMPLATE_TOKENS), _AFTER]
    return HunyuanVideo15Pipeline(
        text_encoder=tiny_qwen(VOCABULARY + len(words)),
        tokenizer=chat_tokenizer(2000, words=words),
        transformer=_transformer(),
        vae=_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        text_encoder_2=tiny_t5(),
        tokenizer_2=byte_tokenizer(512),
        guider=kind(**guider),
    )


def _transformer():
    net = HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        text_embed_2_dim=WIDTH,
        image_embed_dim=8,
        rope_axes_dim=(4, 4, 4),
        target_size=64,
        task_type="t2v",
    )
    return scaled(net)


def _vae():
    vae = AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(8,) * 5,
        layers_per_block=1,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    return vae.eval()


def shrink(pipeline):
    """Its 1000 tokens and 729 of an image, all padding, would take most of a test's time."""
    pipeline.tokenizer_max_length, pipeline.tokenizer_2_max_length, pipeline.vision_num_semantic_tokens = 96, 40, 5


def set_guidance(pipeline, scale):
    pipeline.guider.guidance_scale = scale
    return {}


TINY = Tiny(
    "hunyuan_video_15",
    "guider",
    tiny_hunyuan_video_15,
    {"height": 32, "width": 48, "num_frames": 5},
    set_guidance=set_guidance,
    shrink=shrink,
)
