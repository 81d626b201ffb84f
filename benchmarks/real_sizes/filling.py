"""Modules of a real size without a file: made without weights, then filled with random ones on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

__all__ = ["META", "RandomStates", "byte_tokenizer", "made"]

META = "meta"
_SPECIAL = ("<pad>", "</s>", "<unk>")
M = TypeVar("M", bound=nn.Module)


def made(make: Callable[[], M], dtype: torch.dtype, device: str) -> M:
    """Return the module that `make` builds, with random weights on a device; the CPU never holds them.

    Matrices keep the scale of what goes through them and norms start at one, so that nothing overflows; what diffusers
    keeps in float32 is in float32. Buffers are what the module computes them to be. On torch's meta device there are
    neither.
    """
    if device == META:
        with torch.device(META), _default_dtype(dtype):
            return make().eval()
    with init_empty_weights(include_buffers=False), _default_dtype(dtype):
        module = make()
    kept = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    generator = torch.Generator(device).manual_seed(0)
    for prefix, owner in module.named_modules():
        for key, weight in owner._parameters.items():
            if weight is not None:
                name = f"{prefix}.{key}"
                own = torch.float32 if kept & set(name.split(".")) else dtype
                owner._parameters[key] = nn.Parameter(_random(name, weight.shape, own, generator), requires_grad=False)
    return module.to(device=device).eval()


def _random(name: str, shape: torch.Size, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    device = generator.device
    if len(shape) >= 2 and "table" not in name:
        fan_in = shape[1:].numel()
        return torch.empty(shape, dtype=dtype, device=device).normal_(0, fan_in**-0.5, generator=generator)
    if name.endswith(("weight", "gamma")):
        return torch.ones(shape, dtype=dtype, device=device)
    return torch.empty(shape, dtype=dtype, device=device).normal_(0, 0.02, generator=generator)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class RandomStates(nn.Module):
    """Stands in for a text encoder: random states of the right width and number, in no time and no memory."""

    def __init__(self, width: int, dtype: torch.dtype, device: str) -> None:
        super().__init__()
        self._width, self.dtype, self.device = width, dtype, torch.device(device)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Any:
        """Return states, shape (rows, tokens, width)."""
        states = torch.randn(*input_ids.shape, self._width, dtype=self.dtype, device=self.device)
        return BaseModelOutput(last_hidden_state=states)


def byte_tokenizer(length: int) -> Any:
    """Return a tokenizer that makes one token of a byte, for no vocabulary can be downloaded."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    symbols = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    end = [("</s>", vocabulary["</s>"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=end)
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **names)
