"""Contact sheets: pictures of videos that a page carries inside itself."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from lemica_planner.errors import PlanFormatError

__all__ = ["Sheet", "read_sheet"]

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Sheet:
    """A picture with a caption.

    Attributes
    ----------
    caption : str
    png : bytes
        The whole file.
    """

    caption: str
    png: bytes

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def read_sheet(given: str) -> Sheet:
    """Read ``CAPTION=FILE.png``; the last ``=`` counts.

    Raises
    ------
    PlanFormatError
        If there is no caption, or the file is no PNG.
    OSError
        If it cannot be read.
    """
    caption, equals, path = given.rpartition("=")
    if not equals or not caption.strip() or not path:
        raise PlanFormatError(f"a sheet must be CAPTION=FILE.png; got {given!r}")
    png = Path(path).read_bytes()
    if not png.startswith(_PNG):
        raise PlanFormatError(f"{path} is no PNG; give a picture that begins as one")
    return Sheet(caption.strip(), png)
