"""A frame as a PNG file."""

from __future__ import annotations

import io

import av
import numpy as np
from numpy.typing import NDArray


def encode_png(frame: NDArray[np.uint8]) -> bytes:
    """Return the PNG file of a frame of shape (height, width, 3)."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="image2pipe") as container:
        stream = container.add_stream("png", rate=1)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frame.shape[:2]
        stream.pix_fmt = "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
