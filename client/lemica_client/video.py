"""A finished video as it reached the client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemica_client.encode import check_file_format, encode
from lemica_client.errors import LemicaClientError

DEFAULT_FPS = 8.0  # of a server that does not say


class Video:
    """Frames, the server's account of how it made them, and the file it encoded if one was asked for.

    Attributes
    ----------
    info : dict
        As the server sent it: seed, budget, computed steps, predicted error, timings in milliseconds, plan id.
    file_bytes : bytes or None
        The file that the server encoded; None unless `file_format` was asked for.
    file_format : str or None
        Its format: ``mp4``, ``gif`` or ``webp``.
    """

    def __init__(
        self,
        info: dict[str, Any],
        *,
        frames: NDArray[np.uint8] | None = None,
        file_bytes: bytes | None = None,
        file_format: str | None = None,
    ) -> None:
        self._frames = frames
        self.info = info
        self.file_bytes = file_bytes
        self.file_format = file_format

    def __repr__(self) -> str:
        pixels = "file only" if self._frames is None else "x".join(map(str, self._frames.shape[:3]))
        return f"<Video {pixels}, seed {self.info.get('seed')}, budget {self.info.get('budget')}>"

    @property
    def frames(self) -> NDArray[np.uint8]:
        """Pixels as the model made them: uint8 of shape (frames, height, width, 3), RGB.

        Raises
        ------
        LemicaClientError
            If the video was asked for without them (``want_frames=False``); a lossy file never stands in for them.
        """
        if self._frames is None:
            raise LemicaClientError("this video came without its frames: ask for it without want_frames=False")
        return self._frames

    @property
    def fps(self) -> float:
        """Frames a second."""
        return float(self.info.get("fps", DEFAULT_FPS))

    def save(self, path: str | Path) -> Path:
        """Write the video to a file whose suffix names the format: ``.mp4``, ``.gif`` or ``.webp``.

        The server's own file is written where it has that format; otherwise the frames are encoded here.

        Returns
        -------
        Path
            `path`.

        Raises
        ------
        InvalidRequestError
            If the suffix is none of the three.
        MissingDependencyError
            If the frames have to be encoded here and PyAV is not installed.
        LemicaClientError
            If they have to be encoded here and did not come along (``want_frames=False``).
        OSError
            If the file cannot be written.
        """
        path = Path(path)
        wanted = file_format_of(path)
        if self.file_bytes is not None and self.file_format == wanted:
            path.write_bytes(self.file_bytes)
        else:
            path.write_bytes(encode(self.frames, self.fps, wanted))
        return path


def file_format_of(path: Path) -> str:
    """Return the format that a file name's suffix stands for.

    Examples
    --------
    >>> file_format_of(Path("out/Video.MP4"))
    'mp4'
    """
    file_format = path.suffix.lower().removeprefix(".")
    check_file_format(file_format)
    return file_format
