"""A random-weight HunyuanVideo pipeline, whose tokenizer gives the real prompt template its real 95 tokens."""

from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

from tests.tiny.parts import VOCABULARY, WIDTH, byte_tokenizer, cut, scaled

SIZE = {"height": 32, "width": 48, "num_frames": 9}
_SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 3}


def tiny_hunyuan_video(**net):
    before, after = DEFAULT_PROMPT_TEMPLATE["template"].split("{}")
    words = [*cut(before, DEFAULT_PROMPT_TEMPLATE["crop_start"] - 1), after]  # the first token is <s>
    return HunyuanVideoPipeline(
        text_encoder=_llama(VOCABULARY + len(words)),
        tokenizer=byte_tokenizer(512, template="<s> $A", words=words),
        transformer=_transformer(**net),
        vae=_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=_clip(),
        tokenizer_2=byte_tokenizer(77, template="<s> $A </s>"),
    )


def _llama(vocabulary):
    sizes = {"hidden_size": WIDTH, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig(vocab_size=vocabulary, num_hidden_layers=4, max_position_embeddings=512, **sizes, **_SPECIAL)
    return LlamaModel(config).eval()


def _clip():
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "projection_dim": 8}
    config = CLIPTextConfig(vocab_size=VOCABULARY, num_hidden_layers=1, max_position_embeddings=77, **sizes, **_SPECIAL)
    return CLIPTextModel(config).eval()


def _transformer(**net):
    transformer = HunyuanVideoTransformer3DModel(
        **{"guidance_embeds": True} | net,
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=2,
        patch_size_t=1,
        text_embed_dim=WIDTH,
        pooled_projection_dim=8,
        rope_axes_dim=(4, 4, 4),
    )
    return scaled(transformer)


def _vae():
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(4,) * 4,
        layers_per_block=1,
        norm_num_groups=2,
        mid_block_add_attention=True,
    )
    return vae.eval()
