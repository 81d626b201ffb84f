"""Image files: what is read, how, and what is refused."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Pillow

from lemica_backend.errors import InvalidRequestError
from lemica_backend.image_file import open_image, read_image
from tests.tiny.family import noise_png

MOST = 10**6
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)


def saved(picture=None, file_format="PNG", **options):
    buffer = BytesIO()
    (picture or Pillow.fromarray(PIXELS)).save(buffer, format=file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("file_format", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 95})]
)
def test_every_format_is_read(file_format, options):
    image = read_image(saved(file_format=file_format, **options), max_pixels=24)
    assert (image.height, image.width) == (6, 4)
    shown = np.asarray(open_image(image), int)
    assert np.abs(shown - PIXELS).mean() <= (0 if file_format != "JPEG" else 40)


def test_a_camera_held_sideways_is_upright():
    exif = Pillow.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees to the right
    image = read_image(saved(exif=exif), max_pixels=MOST)
    assert (image.height, image.width) == (4, 6)
    assert np.array_equal(np.asarray(open_image(image)), np.rot90(PIXELS, -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_become_rgb(mode):
    picture = Pillow.fromarray(PIXELS).convert(mode)
    image = read_image(saved(picture), max_pixels=MOST)
    assert np.array_equal(np.asarray(open_image(image)), np.asarray(picture.convert("RGB")))


def transparent(mode):
    picture = Pillow.fromarray(PIXELS).convert("RGBA")
    picture.putpixel((1, 1), (0, 0, 0, 254))
    return saved(picture if mode == "RGBA" else picture.convert(mode))


def animated():
    return saved(save_all=True, append_images=[Pillow.new("RGB", (4, 6))])


def bomb(side):
    """A file of a few bytes whose header says that it is large."""
    parts = ((b"IHDR", struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


REFUSED = [
    (b"", "has 0 bytes, is empty"),
    (b"GIF89a" + b"\0" * 50, "begins with 47 49 46 38 39 61 00 00: no file that can be read of PNG, JPEG, WEBP"),
    (saved(file_format="BMP"), "no file that can be read"),
    (noise_png(6, 4)[:20], "image"),
    (noise_png(64, 64)[:-4000], "image is broken"),
    (saved(file_format="JPEG")[:-40], "image is broken"),
    (bomb(2000), "image is 2000 x 2000; at most 1000000 pixels are allowed"),
    (bomb(60000), "far too large: make it smaller .*3600000000 pixels"),
    (transparent("RGBA"), "transparent pixels"),
    (transparent("LA"), "transparent pixels"),
    (saved(transparency=tuple(map(int, PIXELS[0, 0]))), "transparent pixels"),
    (saved(Pillow.fromarray(PIXELS[..., 0].astype(np.uint16) * 256)), "mode I;16; save it with 8 bits a colour"),
    (animated(), "image moves"),
]


@pytest.mark.parametrize(("data", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_what_cannot_begin_a_video_is_refused(data, says):
    with pytest.raises(InvalidRequestError, match=says):
        read_image(data, max_pixels=MOST)
