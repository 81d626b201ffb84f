"""One request: its options as given, checked once, and as tensors for every attempt to send it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from lemica_client.encode import check_file_format
from lemica_client.errors import InvalidRequestError
from lemica_client.image import image_bytes
from lemica_client.protocol import InputTensor, build_inputs

_MAX_TIMEOUT_S = 1e9  # 30 years; far beyond it the protocols' own clocks overflow


class GenerateOptions(TypedDict, total=False):
    """What a request may say beside its prompt; None leaves an option to the server.

    Attributes
    ----------
    negative_prompt : str
        What the video should not show.
    image : path, bytes or ndarray of uint8
        What the video begins with, for models that continue an image: a PNG, JPEG or WebP file, its bytes, or pixels
        of shape (height, width, 3). Its shape is the video's; it is only scaled.
    seed : int
        Seed of the initial noise; without it the server draws one (``video.info["seed"]``).
    guidance_scale : float
        Weight of classifier-free guidance; at most 1 turns it off.
    num_inference_steps : int
        Denoising steps.
    height, width : int
        Size in pixels.
    num_frames : int
        Frames.
    budget : str or int
        ``"full"``, a name in the model's plan such as ``"slow"`` or ``"fast"``, or a number of computed steps; or
        a range of these, such as ``"fast..slow"``, in which the server chooses.
    deadline_ms : int
        The server's admission: milliseconds from the request's arrival there after which the video is of no use. The
        server refuses at once what it cannot make by then, and names the earliest time that it could. With retries
        it still counts from the first attempt.
    priority : int
        Requests of a higher priority go first.
    client_id : str
        Whose request it is: the server shares its time fairly between clients that wait. Those that do not say are
        one client together.
    file_format : {"mp4", "gif", "webp"}
        Also let the server encode the video; `Video.save` then writes that file.
    want_frames : bool
        False leaves the raw frames on the server: only the encoded file crosses the network.
    timeout_s : float
        This side's patience: seconds to wait for the answer, retries included; the server then stops working on it.
    """

    negative_prompt: str | None
    image: str | PathLike[str] | bytes | NDArray[np.uint8] | None
    seed: int | None
    guidance_scale: float | None
    num_inference_steps: int | None
    height: int | None
    width: int | None
    num_frames: int | None
    budget: str | int | None
    deadline_ms: int | None
    priority: int | None
    client_id: str | None
    file_format: str | None
    want_frames: bool
    timeout_s: float | None


class StreamOptions(GenerateOptions, total=False):
    """The options of a stream: those of `GenerateOptions`, and one more.

    Attributes
    ----------
    preview_every : int
        Send a small picture with every so many steps.
    """

    preview_every: int | None


@dataclass(frozen=True)
class Request:
    """A checked request. `options` are the tensors' values by name; the clock is that of `time.monotonic`."""

    options: Mapping[str, object]
    outputs: list[str]
    file_format: str | None
    started_at_s: float
    timeout_s: float

    @property
    def give_up_at_s(self) -> float:
        """When nobody waits for the answer any more: the earlier of the time limit and the deadline."""
        deadline_ms = self.options.get("deadline_ms")
        limit_s = self.timeout_s if not isinstance(deadline_ms, int) else min(self.timeout_s, deadline_ms / 1e3)
        return self.started_at_s + limit_s

    @property
    def remaining_s(self) -> float:
        """Seconds that are left of the time limit, at least a thousandth."""
        return max(self.started_at_s + self.timeout_s - time.monotonic(), 0.001)

    @property
    def frames_key(self) -> tuple[object, ...]:
        """What the size of the frames depends on."""
        return tuple(self.options.get(name) for name in ("height", "width", "num_frames"))

    def tensors(self, is_first: bool = True) -> list[InputTensor]:
        """Return the inputs; on a later attempt the deadline is what is left of it."""
        deadline_ms = self.options.get("deadline_ms")
        if is_first or not isinstance(deadline_ms, int):
            return build_inputs(self.options)
        spent_ms = 1e3 * (time.monotonic() - self.started_at_s)
        return build_inputs({**self.options, "deadline_ms": max(1, math.floor(deadline_ms - spent_ms))})


def make_request(prompt: str, options: Mapping[str, Any], known: type, timeout_s: float) -> Request:
    """Check a request before anything is sent.

    Parameters
    ----------
    prompt : str
    options : mapping
        Given by the caller.
    known : type
        `GenerateOptions` or `StreamOptions`: what is allowed.
    timeout_s : float
        For a request that names no time limit of its own.

    Raises
    ------
    InvalidRequestError
        If a value has the wrong type or is out of its range.
    TypeError
        If an option is unknown, as with every Python function.
    """
    if unknown := sorted(set(options) - set(known.__annotations__)):
        raise TypeError(f"unknown option {unknown[0]!r}; known are {', '.join(sorted(known.__annotations__))}")
    given = dict(options)
    want_frames, own_timeout_s = given.pop("want_frames", True), given.pop("timeout_s", None)
    outputs = _choose_outputs(given.get("file_format"), want_frames)
    limit_s = timeout_s if own_timeout_s is None else check_timeout(own_timeout_s)
    if given.get("image") is not None:  # a file is read once, however often the request is sent
        given["image"] = image_bytes(given["image"])
    request = Request({"prompt": prompt, **given}, outputs, given.get("file_format"), time.monotonic(), limit_s)
    request.tensors()
    return request


def check_timeout(timeout_s: float) -> float:
    """Return a time limit if it can be one."""
    if not 0 < timeout_s <= _MAX_TIMEOUT_S:  # NaN included
        raise InvalidRequestError(f"timeout_s: got {timeout_s}; allowed is above 0 and at most {_MAX_TIMEOUT_S:.0f}")
    return timeout_s


def _choose_outputs(file_format: str | None, want_frames: bool) -> list[str]:
    """Name only what will be used: the server makes no other output."""
    if file_format is None and not want_frames:
        raise InvalidRequestError("want_frames: got False without a file_format, which leaves nothing to make")
    if file_format is not None:
        check_file_format(file_format)
    return [*(["video"] if want_frames else []), *(["video_file"] if file_format else []), "info"]
