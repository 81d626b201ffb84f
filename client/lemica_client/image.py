"""What callers give as an image, as the bytes of a file; knows numpy and zlib, and decodes nothing."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemica_client.errors import InvalidRequestError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB_8_BIT = (8, 2, 0, 0, 0)  # bit depth, colour type, compression, filter, interlace
_QUICK = 1  # of zlib's levels: a local network is faster than a better one


def image_bytes(image: object) -> bytes:
    """Return the file of an image.

    Parameters
    ----------
    image : str, path, bytes or ndarray of uint8
        The path of a PNG, JPEG or WebP file, its bytes, or RGB pixels of shape (height, width, 3), which become a PNG.

    Raises
    ------
    InvalidRequestError
        If it is none of these, or the file cannot be read.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, np.ndarray):
        return _png(image)
    if isinstance(image, str | os.PathLike):
        return _read(Path(image))
    raise InvalidRequestError(f"image: got {type(image).__name__}; allowed are a path, bytes and a numpy array")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InvalidRequestError(f"image: {path} cannot be read ({exc.strerror}); give a file, or its bytes") from exc


def _png(pixels: NDArray[Any]) -> bytes:
    """Encode as https://www.w3.org/TR/png-3/ says; every row goes unfiltered."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        got = f"{list(pixels.shape)} of {pixels.dtype}"
        raise InvalidRequestError(f"image: got an array {got}; allowed is [height, width, 3] of uint8")
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">2I5B", width, height, *_RGB_8_BIT)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), _QUICK)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
