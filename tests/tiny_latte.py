"""A random-weight Latte in the standard diffusers layout: made offline in well under a second, steps take milliseconds.

Its 36 patches a frame differ from its 16 frames on purpose: where they are equal, a residual taken in the
temporal layout fits the spatial one and a cache can be silently wrong.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FRAMES = 16
SIZE = 48  # pixels: 12 latent cells of 4 pixels
PATCHES = 36
NUM_LAYERS = 2
MAX_TOKENS = 120

_SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")


def make_tiny_latte(make_vae=None):
    """Return a random-weight ``LattePipeline``; the weights are the same on every call."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from diffusers import DDIMScheduler, LattePipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LattePipeline(
            tokenizer=_byte_tokenizer(),
            text_encoder=_text_encoder(),
            vae=(make_vae or _vae)(),
            transformer=_transformer(),
            # predicting the velocity keeps random-weight latents near 1, so that absolute tolerances mean something
            scheduler=DDIMScheduler(clip_sample=False, beta_schedule="linear", prediction_type="v_prediction"),
        )


def build_tiny_latte(folder: Path) -> None:
    """Save it into ``folder``."""
    make_tiny_latte().save_pretrained(folder)


def _byte_tokenizer():
    """One token a byte: needs no corpus, loses nothing."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    symbols = [*_SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )


def _text_encoder():
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(_SPECIAL_TOKENS) + 256,
        d_model=32,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=4,
        relative_attention_num_buckets=8,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return T5EncoderModel(config).eval()


def _vae():
    from diffusers import AutoencoderKL

    levels = 3  # 4 x 4 pixels a latent cell
    return AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=SIZE,
    ).eval()


def _transformer():
    from diffusers import LatteTransformer3DModel

    transformer = LatteTransformer3DModel(
        sample_size=12,
        patch_size=2,
        num_layers=NUM_LAYERS,
        num_attention_heads=3,
        attention_head_dim=8,
        cross_attention_dim=24,
        caption_channels=32,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        video_length=FRAMES,
    )
    _give_every_weight_a_scale(transformer)
    return transformer.eval()


def _give_every_weight_a_scale(module: torch.nn.Module) -> None:
    """Fresh diffusion transformers start as almost the identity, which would hide errors of a cache."""
    import torch

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            is_matrix = parameter.ndim >= 2 and "table" not in name
            parameter.normal_(0, parameter[0].numel() ** -0.5 if is_matrix else 0.1)
