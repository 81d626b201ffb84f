"""Switches of autoencoders that save memory while they decode."""

from __future__ import annotations

from typing import Any

from lemica_backend.config import Decode
from lemica_backend.errors import ModelLoadError


def cut_decoding(autoencoder: Any, decode: Decode) -> None:
    """Let an autoencoder of diffusers decode in tiles or slices.

    Raises
    ------
    ModelLoadError
        If it cannot do what is wanted.
    """
    for name, is_wanted in decode.model_dump().items():
        if not is_wanted:
            continue
        enable = getattr(autoencoder, f"enable_{name}", None)
        if enable is None:
            raise ModelLoadError(f"model.json: decode.{name}: {type(autoencoder).__name__} cannot: leave it out")
        enable()
