"""Bytes that a module's weights take once they are loaded, of modules on torch's meta device."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from diffusers import ModelMixin
from torch import Tensor, nn

from lemica_backend.config import Quantization
from lemica_backend.models.quantizing import torchao_type

__all__ = ["weight_bytes"]

_BITSANDBYTES_BLOCK = 64  # weights that share a scale, in 4 bits


def weight_bytes(part: nn.Module, dtype: torch.dtype, quantization: Quantization | None = None) -> int:
    """Return the bytes of all weights; the module is changed on the way.

    torchao's are counted by having it quantise the module, bitsandbytes' by its formats' rules.

    Raises
    ------
    ValueError
        If torchao is not installed, has no such type, or cannot quantise to it on this machine.
    """
    kept = _kept_in_float32(part, dtype)
    nn.Module.to(part, dtype)  # not diffusers' own, which warns of those that are kept
    if quantization is None:
        return sum(_bytes(weight, name, kept) for name, weight in part.named_parameters())
    left_out = {*_never_quantised(part), *quantization.kwargs.get("modules_to_not_convert", ())}
    if quantization.backend == "torchao":
        _quantise(part, torchao_type(quantization), left_out)
        return sum(_bytes(weight, name, kept) for name, weight in part.named_parameters())
    small = {f"{name}.weight" for name, each in part.named_modules() if _is_quantised(each, name, left_out)}
    return sum(
        _packed_bytes(weight, quantization.backend) if name in small else _bytes(weight, name, kept)
        for name, weight in part.named_parameters()
    )


def _kept_in_float32(part: Any, dtype: torch.dtype) -> frozenset[str]:
    """Return the names of modules whose weights diffusers, or transformers in float16, leaves in float32."""
    if dtype == torch.float32 or (dtype == torch.bfloat16 and not isinstance(part, ModelMixin)):
        return frozenset()
    return frozenset(getattr(part, "_keep_in_fp32_modules", None) or ())


def _never_quantised(part: Any) -> frozenset[str]:
    names = getattr(part, "_keep_in_fp32_modules", None) if isinstance(part, ModelMixin) else None
    return frozenset(names or ())


def _bytes(weight: Tensor, name: str, kept: Collection[str]) -> int:
    if hasattr(weight, "__tensor_flatten__"):
        inner, _ = weight.__tensor_flatten__()
        return sum(getattr(weight, each).nbytes for each in inner)
    return weight.numel() * (torch.float32 if set(name.split(".")) & set(kept) else weight.dtype).itemsize


def _quantise(part: nn.Module, kind: Any, left_out: Collection[str]) -> None:
    from torchao.quantization import quantize_  # noqa: PLC0415 - an optional extra

    try:
        quantize_(part, kind, filter_fn=lambda module, name: _is_quantised(module, name, left_out))
    except (AssertionError, NotImplementedError, RuntimeError) as error:  # some take a GPU
        raise ValueError(f"model.json, quantization.kwargs: torchao cannot do that here: {error}") from error


def _is_quantised(module: nn.Module, name: str, left_out: Collection[str]) -> bool:
    """Whether diffusers' quantisers take a module's weight."""
    return isinstance(module, nn.Linear) and not any(f"{each}." in f"{name}." for each in left_out)


def _packed_bytes(weight: Tensor, backend: str) -> int:
    rows, count = weight.shape[0], weight.numel()
    if backend == "bitsandbytes_8bit":
        return count + rows * torch.float32.itemsize
    return count // 2 + -(-count // _BITSANDBYTES_BLOCK) * torch.float32.itemsize
