"""The one contract between the engine and a family of models; knows nothing about requests or plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lemica_backend.model_info import ModelInfo
from lemica_backend.types import Branch, Image

__all__ = ["BEGINS_WITH", "ModelInfo", "Scheduler", "Shown", "Stem", "Text", "VideoModel", "guided", "text_branches"]

BEGINS_WITH = "begins_with"  # what a plan for a model that takes an image says, beside the sampler; no option's name
Text = Any  # what a family keeps of one branch's text, tensors without a dimension for rows; nobody else looks inside


class Stem(NamedTuple):
    """What stays outside the block stack, one row a request's branch.

    Attributes
    ----------
    hidden : Tensor, shape (R, ..., width)
        The embedded latents that enter the block stack; what the stack adds to them is the residual. Memory of its own:
        where no row computes, residuals are added to it in place.
    conditions : tuple of Tensor, each of shape (R, ...)
        What the family's own blocks and head need beside it, such as the embedded timestep.
    """

    hidden: Tensor
    conditions: tuple[Tensor, ...]

    def rows(self, index: Sequence[int]) -> Stem:
        """Return the given rows, in the given order; an index may repeat."""
        pick = list(index)
        return Stem(self.hidden[pick], tuple(each[pick] for each in self.conditions))

    def repeated(self, times: int) -> Stem:
        """Return each row so many times, as tensors of their own; faster than `rows`."""
        if times == 1:
            return self
        hidden, *conditions = (each.repeat_interleave(times, dim=0) for each in (self.hidden, *self.conditions))
        return Stem(hidden, tuple(conditions))


class Shown(NamedTuple):
    """A request's texts and what its video begins with.

    Attributes
    ----------
    texts : dict of Branch to Text
        Each with what its row needs of the image.
    kept : Tensor or None
        The first latent frames (C, f, h, w) where the image is those, whatever the steps make of them.
    """

    texts: dict[Branch, Text]
    kept: Tensor | None = None


class Scheduler(Protocol):
    """One request's own sampler state (a diffusers scheduler after ``set_timesteps``, or what stands for one)."""

    timesteps: Tensor

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *, return_dict: bool) -> tuple[Tensor, ...]:
        """Return the latents of the next step."""
        ...


class VideoModel(Protocol):
    """A text-to-video or image-to-video diffusion transformer, cut where the step cache cuts it."""

    info: ModelInfo

    @property
    def autoencoder(self) -> Any:
        """What decodes, with the switches that it has."""
        ...

    @property
    def networks(self) -> tuple[Any, ...]:
        """The denoising networks: one, or two where the model changes its weights on the way."""
        ...

    def branches(self, guidance_scale: float) -> tuple[Branch, ...]:
        """Return the branches that run at this guidance scale, in the order of `guide`."""
        ...

    def encode_text(
        self, prompt: str, negative_prompt: str, branches: Sequence[Branch], guidance_scale: float = 1.0
    ) -> dict[Branch, Text]:
        """Return each branch's text, with the guidance scale where the transformer takes it as an input."""
        ...

    def show(self, texts: dict[Branch, Text], image: Image, seed: int) -> Shown:
        """Encode the image that a video begins with; for models whose `info` says that they take one."""
        ...

    def initial_noise(self, seed: int) -> Tensor:
        """Return the noise that the model's own pipeline draws, before its scheduler scales it.

        Its shape is ``info.latents_shape``.
        """
        ...

    def new_scheduler(self, num_inference_steps: int, seed: int = 0) -> Scheduler:
        """Return a scheduler that belongs to one request; it can be deep-copied at any step, noise included.

        The seed is that of the initial noise, for samplers that draw more.
        """
        ...

    def switches(self, timesteps: Tensor) -> frozenset[int]:
        """Return the steps at which other weights take over: nothing computed before them may be reused from there."""
        ...

    def stem(self, latents: Tensor, timesteps: Tensor, texts: Sequence[Text]) -> Stem:
        """Embed latents of shape (R, ...) at timesteps of shape (R,), each row with its own text."""
        ...

    def blocks(self, stem: Stem, texts: Sequence[Text]) -> Tensor:
        """Run the block stack on the stem's rows, each with its own text; shape of ``stem.hidden``."""
        ...

    def head(self, hidden: Tensor, stem: Stem) -> Tensor:
        """Turn hidden states into the model's output, in the shape of the latents; not to read ``stem.hidden``."""
        ...

    def guide(self, outputs: Tensor, guidance_scale: float, timestep: Tensor, num_inference_steps: int) -> Tensor:
        """Combine the outputs of a request's branches, shape (branches, ...), into one."""
        ...

    def decode(self, latents: Tensor, seed: int = 0) -> NDArray[np.uint8]:
        """Decode one request's latents to frames (F, height, width, 3).

        The seed is that of the initial noise, for autoencoders that draw more.
        """
        ...


def text_branches(guidance_scale: float) -> tuple[Branch, ...]:
    """Return the branches of classifier-free guidance, which a scale of at most 1 turns off."""
    return ("uncond", "cond") if guidance_scale > 1 else ("cond",)


def guided(outputs: Tensor, guidance_scale: float) -> Tensor:
    """Combine the branches (Ho and Salimans, 2022, equation 6): rows are uncond, cond, or cond alone."""
    if len(outputs) == 1:
        return outputs[0]
    uncond, cond = outputs.unbind()
    return uncond + guidance_scale * (cond - uncond)
