"""What a calibration's sample asks the engine for."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lemica_backend.config import Limits
from lemica_backend.image_file import read_image
from lemica_backend.planned import FULL
from lemica_backend.types import GenerationRequest, Image
from lemica_planner import CalibrationError, Sample


def request_of(sample: Sample, limits: Limits) -> GenerationRequest:
    """Return the request for the sample's video, every step computed.

    Raises
    ------
    CalibrationError
        If its image cannot be read, or is no longer the one that was chosen.
    InvalidRequestError
        If its image is not one that a request may bring.
    """
    image = _image(sample, limits) if sample.image else None
    return GenerationRequest(sample.prompt, seed=sample.seed, budget=FULL, image=image)


def _image(sample: Sample, limits: Limits) -> Image:
    try:
        data = Path(sample.image).read_bytes()
    except OSError as error:
        raise CalibrationError(f"the image of the prompt {sample.prompt[:80]!r} cannot be read: {error}") from error
    if hashlib.sha256(data).hexdigest() != sample.image_sha256:
        raise CalibrationError(f"{sample.image} is another image than when the prompts were read: begin again")
    return read_image(data, max_pixels=limits.max_image_pixels)
