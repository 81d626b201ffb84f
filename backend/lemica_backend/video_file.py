"""Frames to the bytes of a video file; knows nothing of requests or Triton."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator

import av
import numpy as np
from av.container import OutputContainer
from av.filter import Graph
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from lemica_backend.errors import InvalidRequestError

Frames = NDArray[np.uint8]
_BT709 = 1  # ITU-T H.273: the primaries, transfer and matrix of HD video


def encode_video(frames: Frames, file_format: str, fps: int) -> bytes:
    """Return the file that holds `frames`.

    Parameters
    ----------
    frames : ndarray of uint8, shape (frames, height, width, 3)
        RGB.
    file_format : str
        ``mp4`` (H.264, 4:2:0), ``gif`` (256 colours, loops) or ``webp`` (animated, loops).
    fps : int
        Frames per second; a gif keeps time in hundredths of a second and rounds to them.

    Raises
    ------
    InvalidRequestError
        If the format is unknown, or is mp4 and the height or width is odd.
    """
    if file_format not in _ENCODERS:
        raise InvalidRequestError(f"file_format is {file_format!r}; allowed are {', '.join(_ENCODERS)}")
    return _ENCODERS[file_format](frames, fps)


def check_size(file_format: str, height: int, width: int) -> None:
    """Refuse a size that the format cannot hold.

    Raises
    ------
    InvalidRequestError
        If the format is mp4 and the height or width is odd: its colours are stored for 2 x 2 pixels, and
        a file with one more row or column than was asked for would be a silent change.
    """
    if file_format == "mp4" and (height % 2 or width % 2):
        raise InvalidRequestError(
            f"mp4 needs an even height and width, the video has {height} x {width}; ask for file_format gif or webp, "
            "or for the output video"
        )


def _encode_mp4(frames: Frames, fps: int) -> bytes:
    check_size("mp4", *frames.shape[1:3])
    # the index can move to the front (faststart) only in what has a name to be opened again by
    with open(os.memfd_create("video.mp4"), "rb") as memory:  # noqa: PTH123 - a descriptor, not a path
        path = f"/proc/self/fd/{memory.fileno()}"
        with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=fps, options={"crf": "17", "preset": "veryfast"})
            _set_format(stream, frames, "yuv420p")
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = ColorRange.MPEG
            _mux(container, stream, map(_to_bt709, _video_frames(frames)))
        return memory.read()


def _encode_gif(frames: Frames, fps: int) -> bytes:
    return _encode_in_memory("gif", "gif", "pal8", frames, fps, prepare=_with_palette)


def _encode_webp(frames: Frames, fps: int) -> bytes:
    return _encode_in_memory("webp", "libwebp_anim", "bgra", frames, fps, options={"quality": "90"})


_ENCODERS: dict[str, Callable[[Frames, int], bytes]] = {"mp4": _encode_mp4, "gif": _encode_gif, "webp": _encode_webp}


def _encode_in_memory(
    container_format: str,
    codec: str,
    pixel_format: str,
    frames: Frames,
    fps: int,
    *,
    options: dict[str, str] | None = None,
    prepare: Callable[[Iterable[av.VideoFrame], Frames, int], Iterable[av.VideoFrame]] | None = None,
) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format, options={"loop": "0"}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        assert isinstance(stream, av.VideoStream)
        _set_format(stream, frames, pixel_format)
        images = _video_frames(frames)
        _mux(container, stream, prepare(images, frames, fps) if prepare else images)
    return buffer.getvalue()


def _set_format(stream: av.VideoStream, frames: Frames, pixel_format: str) -> None:
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = pixel_format


def _video_frames(frames: Frames) -> Iterator[av.VideoFrame]:
    for index, pixels in enumerate(frames):
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        image.pts = index
        yield image


def _to_bt709(image: av.VideoFrame) -> av.VideoFrame:
    """Convert with the matrix that the file names; players guess where none is named, and differ."""
    return image.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)


def _with_palette(images: Iterable[av.VideoFrame], frames: Frames, fps: int) -> Iterator[av.VideoFrame]:
    """Give all frames one palette, made from all of them: one a frame would flicker."""
    graph = Graph()
    height, width = frames.shape[1:3]
    size = f"video_size={width}x{height}:pix_fmt=rgb24:time_base=1/{fps}:pixel_aspect=1/1"
    source, split = graph.add("buffer", size), graph.add("split")
    palette, paint, sink = graph.add("palettegen"), graph.add("paletteuse", "dither=none"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(paint, 1, 0)
    palette.link_to(paint, 0, 1)
    paint.link_to(sink)
    graph.configure()
    for image in images:
        source.push(image)
    source.push(None)
    for _ in range(len(frames)):
        painted = sink.pull()
        assert isinstance(painted, av.VideoFrame)
        yield painted


def _mux(container: OutputContainer, stream: av.VideoStream, images: Iterable[av.VideoFrame]) -> None:
    for image in images:
        container.mux(stream.encode(image))
    container.mux(stream.encode())
