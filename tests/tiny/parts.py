"""What the tiny pipelines share: a tokenizer of bytes, text encoders from their configurations, weights that matter."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from diffusers import AutoencoderKL
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

_SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>", "<s>")
VOCABULARY = len(_SPECIAL_TOKENS) + 256
WIDTH = 16  # of the text encoders


def byte_tokenizer(length, *, template="$A </s>", words=()):
    """One token a byte: needs no corpus, loses nothing. `words` are tokens of their own, above `VOCABULARY`."""
    symbols = [*_SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    named = [(name, vocabulary[name]) for name in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=named)
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=length,
    )


# Messages hold a text, or a list of parts with a text each.
_CHAT = (
    "{% for message in messages %}{% set content = message['content'] %}"
    "{{'<|im_start|>' + message['role'] + '\n'"
    " + (content if content is string else content[0]['text']) + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chat_tokenizer(length, words=()):
    """Return a tokenizer of bytes with the chat template of Qwen, to which a language model answers."""
    tokenizer = byte_tokenizer(length, template="$A", words=words)
    tokenizer.chat_template = _CHAT
    return tokenizer


def cut(text, pieces):
    """Cut a prompt template into as many tokens as the real tokenizer makes of it."""
    return [text[len(text) * at // pieces : len(text) * (at + 1) // pieces] for at in range(pieces)]


_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": 16,
    "num_layers": 1,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "feed_forward_proj": "gated-gelu",
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}


def tiny_t5():
    return T5EncoderModel(T5Config(**_T5)).eval()


def tiny_umt5():
    return UMT5EncoderModel(UMT5Config(**_T5)).eval()


def tiny_qwen(vocabulary=VOCABULARY):
    config = Qwen2_5_VLTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]},
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=3,
    )
    return Qwen2_5_VLTextModel(config).eval()


def tiny_clip_text():
    """Return an encoder of texts, whose pooled vectors have 8 numbers."""
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "projection_dim": 8}
    config = CLIPTextConfig(
        vocab_size=VOCABULARY, num_hidden_layers=1, max_position_embeddings=77, eos_token_id=1, **sizes
    )
    return CLIPTextModel(config).eval()


def image_vae(**changed):
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        **{"norm_num_groups": 4} | changed,
    )
    return vae.eval()


def tiny_clip():
    """Return an encoder of images, and what prepares them for it."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    encoder = CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=16, patch_size=8))
    square = {"height": 16, "width": 16}
    return encoder.eval(), CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=square)


def scaled(net, seed=1):
    """Fresh diffusion transformers are almost the identity, which would hide errors of a cache."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            is_matrix = parameter.ndim >= 2 and "table" not in name
            parameter.normal_(0, parameter[0].numel() ** -0.5 if is_matrix else 0.1, generator=generator)
            if name.endswith("weight") and "norm" in name and parameter.ndim == 1:
                parameter.add_(1)
    return net.eval()
