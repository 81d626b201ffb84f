"""The bytes of an image file to an image and back; knows nothing of requests, models or Triton."""

from __future__ import annotations

import io
import warnings

from PIL import Image as Pillow
from PIL import ImageOps

from lemica_backend.errors import InvalidRequestError
from lemica_backend.model_info import ModelInfo
from lemica_backend.types import Image

__all__ = ["FORMATS", "open_image", "read_image", "usual_image"]

FORMATS = ("PNG", "JPEG", "WEBP")
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})  # what becomes RGB without a loss
_GREY = (128, 128, 128)


def read_image(data: bytes, *, max_pixels: int) -> Image:
    """Look at an image file, every pixel of it.

    Parameters
    ----------
    data : bytes
        PNG, JPEG or WebP.
    max_pixels : int
        Of a larger image only the header is read.

    Raises
    ------
    InvalidRequestError
        If the file is of another format, broken, too large, moves, or has transparent pixels or colours that cannot
        become 8-bit RGB.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own word on large images, and on odd metadata
        picture = _opened(data)
        _require_still(picture, max_pixels)
        upright = _upright(picture)
    return Image(data, height=upright.height, width=upright.width)


def open_image(image: Image) -> Pillow.Image:
    """Return the pixels, upright and RGB, as diffusers' ``load_image`` does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _upright(_opened(image.data)).convert("RGB")


def usual_image(info: ModelInfo) -> Image | None:
    """Return a grey image of the video's size where a model needs one, to measure what does not depend on it."""
    if not info.takes_image:
        return None
    buffer = io.BytesIO()
    Pillow.new("RGB", (info.width, info.height), _GREY).save(buffer, format="PNG")
    return Image(buffer.getvalue(), height=info.height, width=info.width)


def _opened(data: bytes) -> Pillow.Image:
    """Read the header."""
    try:
        return Pillow.open(io.BytesIO(data), formats=FORMATS)
    except Pillow.DecompressionBombError as error:  # beyond 179 million
        raise InvalidRequestError(f"image is far too large: make it smaller ({error})") from error
    except Exception as error:  # a broken header shows as almost any error
        shown = f"begins with {data[:8].hex(' ')}" if data else "is empty"
        raise InvalidRequestError(
            f"image has {len(data)} bytes, {shown}: no file that can be read of {', '.join(FORMATS)}; send one of "
            "these, as base64 text where file_encoding is base64"
        ) from error


def _require_still(picture: Pillow.Image, max_pixels: int) -> None:
    size = f"{picture.width} x {picture.height}"
    if picture.width * picture.height > max_pixels:
        raise InvalidRequestError(f"image is {size}; at most {max_pixels} pixels are allowed: make it smaller")
    if picture.mode not in _MODES:
        raise InvalidRequestError(f"image has pixels of Pillow's mode {picture.mode}; save it with 8 bits a colour")
    if picture.format in ("PNG", "WEBP") and getattr(picture, "is_animated", False):
        raise InvalidRequestError("image moves; send one picture of it")


def _upright(picture: Pillow.Image) -> Pillow.Image:
    """Read the pixels, and turn them as the camera says."""
    try:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    except Exception as error:  # as above
        raise InvalidRequestError(f"image is broken ({error}); send a whole {picture.format} file") from error
    if upright.has_transparency_data and upright.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        raise InvalidRequestError("image has transparent pixels, and a video has none; put it on a background")
    return upright
