"""What crosses the engine's borders: a request in, an outcome out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lemica_backend.errors import LemicaError

Branch = Literal["uncond", "cond"]


@dataclass(frozen=True)
class Image:
    """An image file that has been looked at: `lemica_backend.image_file` reads and opens it.

    Attributes
    ----------
    data : bytes
        The file: PNG, JPEG or WebP.
    height, width : int
        In pixels, upright.
    """

    data: bytes = field(repr=False)
    height: int
    width: int


@dataclass(frozen=True)
class GenerationRequest:
    """One video to make. ``None`` means the model's default.

    Attributes
    ----------
    prompt, negative_prompt : str
        What the video should show, and what it should not.
    seed : int or None
        Seed of the initial noise, 0 to 2**63 - 1; None draws one (it is returned in the info).
    guidance_scale : float or None
        Weight of classifier-free guidance; at most 1 turns guidance off.
    num_inference_steps : int or None
        Denoising steps (T).
    height, width : int or None
        Size in pixels.
    num_frames : int or None
        Frames.
    budget : str or None
        ``full``, a name in the plan, a number of computed steps, or a range of these, ``floor..ceiling``.
    deadline_ms : int or None
        Milliseconds from arrival after which the answer is of no use; refused at once if that cannot be kept.
    priority : int
        Requests of a higher priority go first.
    client_id : str
        Whose request it is; clients get fair shares. Those that do not say are one client.
    timeout_ms : int or None
        Milliseconds from arrival after which nobody waits any more; nothing is promised.
    request_id : str
        What logs call it.
    image : Image or None
        What the video begins with, for models that continue an image.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int | None = None
    guidance_scale: float | None = None
    num_inference_steps: int | None = None
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    budget: str | None = None
    deadline_ms: int | None = None
    priority: int = 0
    client_id: str = ""
    timeout_ms: int | None = None
    request_id: str = ""
    image: Image | None = None


@dataclass(frozen=True)
class GenerationResult:
    """A finished video.

    Attributes
    ----------
    frames : ndarray of uint8, shape (frames, height, width, 3)
    latents : ndarray of float32
        The final latents, before decoding, in the shape of the model's own pipeline.
    info : dict
        JSON-ready: seed, budget, computed steps, predicted error, timings in ms, plan id.
    """

    frames: NDArray[np.uint8]
    latents: NDArray[np.float32]
    info: dict[str, Any] = field(default_factory=dict)


Outcome = GenerationResult | LemicaError
