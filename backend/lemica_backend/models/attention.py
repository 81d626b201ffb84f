"""Which kernel of diffusers computes attention."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from lemica_backend.errors import ModelLoadError

_HEAD = 64


def use_attention_backend(networks: Iterable[Any], name: str, *, device: str, dtype: torch.dtype) -> None:
    """Let transformers of diffusers compute attention by one of its backends.

    Parameters
    ----------
    networks : iterable of torch.nn.Module
    name : str
        Of `diffusers.models.attention_dispatch.AttentionBackendName`.
    device, dtype
        Where and in what precision the networks compute; the backend is tried there.

    Raises
    ------
    ModelLoadError
        If there is no such backend, a network has no choice of it, its package is missing, or it does not run here.
    """
    for network in networks:
        if not _takes_backends(network):
            raise ModelLoadError(f"model.json: attention_backend: {type(network).__name__} takes none: leave it out")
        try:
            network.set_attention_backend(name)
            _try_out(name, device, dtype)
        except Exception as error:  # each package fails in its own way
            raise ModelLoadError(f"model.json: attention_backend {name!r} cannot be used here: {error}") from error


def _takes_backends(network: Any) -> bool:
    """Whether its attention goes through diffusers' dispatcher: setting a backend is silent where it does not."""
    modules = network.modules() if hasattr(network, "set_attention_backend") else ()
    return any(hasattr(getattr(module, "processor", None), "_attention_backend") for module in modules)


def _try_out(name: str, device: str, dtype: torch.dtype) -> None:
    from diffusers.models.attention_dispatch import dispatch_attention_fn  # noqa: PLC0415 - only where it is wanted

    one = torch.zeros(1, 8, 1, _HEAD, device=device, dtype=dtype)
    with torch.inference_mode():
        dispatch_attention_fn(one, one, one, backend=name)
