"""A fingerprint of a model's weights, so that a plan is never served on weights it was not made for."""

from __future__ import annotations

import hashlib
from pathlib import Path

_WHOLE_FILE_BYTES = 64 << 20
_EDGE_BYTES = 1 << 20


def hash_weights(folder: Path) -> str:
    """Return a sha256 over the names, sizes and contents of the safetensors files in `folder` and below.

    Of a file above 64 MiB only the first and last MiB count: the header, which names every
    tensor, is at the front, and reading all of a large model at each start would take minutes.
    """
    paths = sorted(folder.rglob("*.safetensors"))
    if not paths:
        raise ValueError(f"no .safetensors files below {folder}; other formats are not served")
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(folder).as_posix()}:{path.stat().st_size};".encode())
        digest.update(_content(path))
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """Return a sha256 over a file's size and contents, as far as `hash_weights` looks at them."""
    digest = hashlib.sha256(f"{path.stat().st_size};".encode())
    digest.update(_content(path))
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size <= _WHOLE_FILE_BYTES:
        return path.read_bytes()
    with path.open("rb") as file:
        front = file.read(_EDGE_BYTES)
        file.seek(size - _EDGE_BYTES)
        return front + file.read()
