"""What a stream tells before its video: typed events, read from the server's `info`."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any

from lemica_client.errors import ServerError


@dataclass(frozen=True)
class Accepted:
    """The server has taken the request.

    Attributes
    ----------
    budget : str
        The budget it will be made with.
    eta_ms : float or None
        Milliseconds until the server expects it to be done; None where it does not know yet.
    """

    budget: str
    eta_ms: float | None


@dataclass(frozen=True)
class Progress:
    """One denoising step was taken.

    Attributes
    ----------
    step, num_steps : int
        Steps taken so far, from 1, and how many there are.
    is_computed : bool
        Whether it ran the block stack; False where it reused an earlier step's work.
    eta_ms : float or None
        Milliseconds until the server expects the video to be done.
    preview : bytes or None
        A small picture (JPEG or PNG) of a frame as it stands, where `preview_every` asked for it.
    """

    step: int
    num_steps: int
    is_computed: bool
    eta_ms: float | None
    preview: bytes | None = field(default=None, repr=False)


def read_json_object(text: str | bytes, name: str) -> dict[str, Any]:
    """Return a JSON object that the server sent; anything else is a `ServerError`."""
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise ServerError(f"{name} is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise ServerError(f"{name} is not a JSON object")
    return value


def read_event(info: dict[str, Any]) -> Accepted | Progress | None:
    """Return the event that an `info` stands for; None for the result, which comes last.

    Raises
    ------
    ServerError
        If it is no event that this client knows.
    """
    kind = info.get("event")
    try:
        if kind == "accepted":
            return Accepted(str(info["budget"]), info.get("eta_ms"))
        if kind == "progress":
            preview = info.get("preview")
            decoded = None if preview is None else base64.b64decode(preview, validate=True)
            return Progress(
                int(info["step"]), int(info["num_steps"]), bool(info["computed"]), info.get("eta_ms"), decoded
            )
    except (KeyError, TypeError, ValueError, binascii.Error) as exc:
        raise ServerError(f"the server's {kind} event cannot be read: {type(exc).__name__}: {exc}") from exc
    if kind != "result":
        raise ServerError(f"the server sent the event {kind!r}; known are accepted, progress and result")
    return None
