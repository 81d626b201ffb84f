"""Encode frames into a video file with PyAV, here rather than on the server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lemica_client.errors import InvalidRequestError, MissingDependencyError

if TYPE_CHECKING:
    import av

FILE_FORMATS = ("mp4", "gif", "webp")


def encode(frames: NDArray[np.uint8], fps: float, file_format: str) -> bytes:
    """Return the bytes of a video file.

    Parameters
    ----------
    frames : ndarray of uint8, shape (frames, height, width, 3)
        RGB.
    fps : float
        Frames a second; a GIF keeps time in hundredths of a second and rounds to them.
    file_format : {"mp4", "gif", "webp"}
        H.264 of high quality, a GIF with a palette made for this video, or lossless animated WebP.

    Raises
    ------
    InvalidRequestError
        If the format is not one of the three, or is mp4 and the height or width is odd.
    MissingDependencyError
        If PyAV is not installed.
    """
    check_file_format(file_format)
    _check_size(file_format, *frames.shape[1:3])
    try:
        import av  # noqa: PLC0415  (lazy: a video that the server encoded needs none)
    except ModuleNotFoundError as exc:
        raise MissingDependencyError(
            "encoding a video needs PyAV: install the extra `client` "
            "(pip install '.[client]' in a checkout of lemica), or let the server encode it with file_format=..."
        ) from exc
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=file_format, options=_MUXER_OPTIONS[file_format]) as container:
        stream = _add_stream(container, file_format, frames, fps)
        for image in _PREPARE[file_format](frames, stream):
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))  # what the encoder still holds
    return buffer.getvalue()


def check_file_format(file_format: str) -> None:
    """Raise `InvalidRequestError` unless the format is one that a video can be written in."""
    if file_format not in FILE_FORMATS:
        raise InvalidRequestError(f"file format: got {file_format!r}; allowed are {', '.join(FILE_FORMATS)}")


def _check_size(file_format: str, height: int, width: int) -> None:
    # Players show H.264 whose colours are stored for 2 x 2 pixels only; adding a row would change the video.
    if file_format == "mp4" and (height % 2 or width % 2):
        raise InvalidRequestError(f"mp4 needs an even height and width, got {height} x {width}; save a gif or webp")


def _add_stream(container: Any, file_format: str, frames: NDArray[np.uint8], fps: float) -> Any:
    rate = Fraction(fps).limit_denominator(1001)
    stream = container.add_stream(_CODECS[file_format], rate=rate, options=_CODEC_OPTIONS[file_format])
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = _PIXEL_FORMATS[file_format]
    return stream


def _rgb_images(frames: NDArray[np.uint8], stream: Any) -> Iterator[av.VideoFrame]:
    import av  # noqa: PLC0415

    for index, pixels in enumerate(np.ascontiguousarray(frames)):
        image = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        image.pts, image.time_base = index, 1 / stream.codec_context.framerate
        yield image


def _bt709_images(frames: NDArray[np.uint8], stream: Any) -> Iterator[av.VideoFrame]:
    """Convert with the matrix that the file names: players guess where none is named, and differ."""
    from av.video.reformatter import ColorRange, Colorspace  # noqa: PLC0415

    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709 in ITU-T H.273
    context.color_range = ColorRange.MPEG
    for image in _rgb_images(frames, stream):
        yield image.reformat(format=stream.pix_fmt, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)


def _palette_images(frames: NDArray[np.uint8], stream: Any) -> Iterator[av.VideoFrame]:
    """Choose 256 colours for the video as a whole: a palette a frame flickers, the encoder's own shows bands."""
    import av  # noqa: PLC0415

    graph = av.filter.Graph()
    rgb, time_base = av.VideoFormat("rgb24"), 1 / stream.codec_context.framerate
    source = graph.add_buffer(width=stream.width, height=stream.height, format=rgb, time_base=time_base)
    split, palette, sink = (graph.add(name) for name in ("split", "palettegen", "buffersink"))
    paint = graph.add("paletteuse", "dither=none")
    for start, output, end, pad in ((split, 0, paint, 0), (split, 1, palette, 0), (palette, 0, paint, 1)):
        start.link_to(end, output, pad)
    source.link_to(split)
    paint.link_to(sink)
    graph.configure()
    for image in _rgb_images(frames, stream):
        source.push(image)
    source.push(None)
    for _ in frames:
        yield cast("av.VideoFrame", sink.pull())


_CODECS = {"mp4": "libx264", "gif": "gif", "webp": "libwebp_anim"}
_CODEC_OPTIONS = {"mp4": {"crf": "17"}, "gif": {}, "webp": {"lossless": "1"}}
_MUXER_OPTIONS = {"mp4": {}, "gif": {"loop": "0"}, "webp": {"loop": "0"}}  # 0: for ever
_PIXEL_FORMATS = {"mp4": "yuv420p", "gif": "pal8", "webp": "bgra"}
_PREPARE = {"mp4": _bt709_images, "gif": _palette_images, "webp": _rgb_images}
