"""The one contract between the engine and a family of models; knows nothing about requests or plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lemica_backend.types import Branch


class Stem(NamedTuple):
    """What stays outside the block stack, one row a request.

    Attributes
    ----------
    hidden : Tensor, shape (R, frames, patches, width)
        The embedded latents that enter the block stack.
    modulation : Tensor, shape (R, ...)
        What the blocks need of the timestep.
    embedding : Tensor, shape (R, width)
        What the head needs of the timestep.
    """

    hidden: Tensor
    modulation: Tensor
    embedding: Tensor

    def rows(self, index: Sequence[int]) -> Stem:
        """Return the given rows, in the given order; an index may repeat."""
        pick = list(index)
        return Stem(self.hidden[pick], self.modulation[pick], self.embedding[pick])


class Scheduler(Protocol):
    """One request's own sampler state (a diffusers scheduler after ``set_timesteps``)."""

    timesteps: Tensor

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *, return_dict: bool) -> tuple[Tensor, ...]:
        """Return the latents of the next step."""
        ...


@dataclass(frozen=True)
class ModelInfo:
    """What a loaded model can serve, and what a cache plan for it depends on."""

    family: str
    max_steps: int  # the scheduler has no more timesteps
    weights_hash: str
    scheduler: str
    scheduler_config: dict[str, Any]
    num_frames: int
    height: int
    width: int
    latents_shape: tuple[int, int, int, int]  # channels, frames, height, width


class VideoModel(Protocol):
    """A text-to-video diffusion transformer, cut where the step cache cuts it."""

    info: ModelInfo

    def encode_text(self, prompt: str, negative_prompt: str, branches: Sequence[Branch]) -> dict[Branch, Tensor]:
        """Return each branch's text states, shape (tokens, width)."""
        ...

    def initial_noise(self, seed: int) -> Tensor:
        """Return the noise that the model's own pipeline draws, before its scheduler scales it.

        Its shape is ``info.latents_shape``.
        """
        ...

    def new_scheduler(self, num_inference_steps: int) -> Scheduler:
        """Return a scheduler that belongs to one request."""
        ...

    def stem(self, latents: Tensor, timesteps: Tensor) -> Stem:
        """Embed latents of shape (R, C, F, h, w) at timesteps of shape (R,)."""
        ...

    def blocks(self, stem: Stem, texts: Sequence[Tensor]) -> Tensor:
        """Run the block stack on the stem's rows, each with its own text; shape of ``stem.hidden``."""
        ...

    def head(self, hidden: Tensor, stem: Stem) -> Tensor:
        """Turn hidden states into the model's output, shape (R, C, F, h, w)."""
        ...

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Decode latents (C, F, h, w) to frames (F, height, width, 3)."""
        ...
