"""A loaded model with another sampler than its pipeline's; the weights are shared."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lemica_backend.config import SchedulerConfig
from lemica_backend.errors import InvalidRequestError, ModelLoadError
from lemica_backend.models.base import BEGINS_WITH, Scheduler, Shown, Stem, Text, VideoModel
from lemica_backend.models.schedulers import describe_scheduler, make_scheduler
from lemica_backend.types import Branch, Image

__all__ = ["ResampledModel"]


class ResampledModel:
    """A `VideoModel` that differs from another in its scheduler only.

    Parameters
    ----------
    model : VideoModel
        Of any family.
    choice : SchedulerConfig

    Attributes
    ----------
    base : VideoModel
        The other model.

    Raises
    ------
    ModelLoadError
        If there is no such scheduler, it does not take the parameters, or the family makes its own schedule.
    """

    def __init__(self, model: VideoModel, choice: SchedulerConfig) -> None:
        if model.info.makes_schedule:
            raise ModelLoadError(f"model.json: scheduler: {model.info.family} makes its own schedule: leave it out")
        own = cast(Any, model.new_scheduler(model.info.max_steps))
        self.base = model
        self._timesteps = choice.timesteps
        self._device = own.timesteps.device
        self._scheduler = make_scheduler(own, choice)
        stated = describe_scheduler(self._scheduler)
        if model.info.takes_image:
            stated[BEGINS_WITH] = "image"
        if choice.timesteps:
            stated["timesteps"] = list(choice.timesteps)
        name = type(self._scheduler).__name__
        self.info = dataclasses.replace(model.info, scheduler=name, scheduler_config=stated)

    @property
    def autoencoder(self) -> Any:
        """The model's."""
        return self.base.autoencoder

    @property
    def networks(self) -> tuple[Any, ...]:
        """The model's."""
        return self.base.networks

    def branches(self, guidance_scale: float) -> tuple[Branch, ...]:
        """Return the model's branches."""
        return self.base.branches(guidance_scale)

    def switches(self, timesteps: Tensor) -> frozenset[int]:
        """Return the steps at which the model's other weights take over."""
        return self.base.switches(timesteps)

    def new_scheduler(self, num_inference_steps: int, seed: int = 0) -> Scheduler:
        """Return a scheduler that belongs to one request.

        Raises
        ------
        InvalidRequestError
            If the timesteps are given, and are not as many.
        """
        scheduler = copy.deepcopy(self._scheduler)
        if self._timesteps is None:
            scheduler.set_timesteps(num_inference_steps, device=self._device)
        elif len(self._timesteps) == num_inference_steps:
            scheduler.set_timesteps(timesteps=list(self._timesteps), device=self._device)
        else:
            raise InvalidRequestError(
                f"num_inference_steps is {num_inference_steps}; this model takes its {len(self._timesteps)} timesteps "
                "from model.json: leave num_inference_steps out or send that"
            )
        return cast(Scheduler, scheduler)

    def encode_text(
        self, prompt: str, negative_prompt: str, branches: Sequence[Branch], guidance_scale: float = 1.0
    ) -> dict[Branch, Text]:
        """Return each branch's text, as the model does."""
        return self.base.encode_text(prompt, negative_prompt, branches, guidance_scale)

    def show(self, texts: dict[Branch, Text], image: Image, seed: int) -> Shown:
        """Encode the image, as the model does."""
        return self.base.show(texts, image, seed)

    def initial_noise(self, seed: int) -> Tensor:
        """Return the model's noise."""
        return self.base.initial_noise(seed)

    def stem(self, latents: Tensor, timesteps: Tensor, texts: Sequence[Text]) -> Stem:
        """Embed latents, as the model does."""
        return self.base.stem(latents, timesteps, texts)

    def blocks(self, stem: Stem, texts: Sequence[Text]) -> Tensor:
        """Run the model's block stack."""
        return self.base.blocks(stem, texts)

    def head(self, hidden: Tensor, stem: Stem) -> Tensor:
        """Run the model's head."""
        return self.base.head(hidden, stem)

    def guide(self, outputs: Tensor, guidance_scale: float, timestep: Tensor, num_inference_steps: int) -> Tensor:
        """Combine the branches, as the model does."""
        return self.base.guide(outputs, guidance_scale, timestep, num_inference_steps)

    def decode(self, latents: Tensor, seed: int = 0) -> NDArray[np.uint8]:
        """Decode, as the model does."""
        return self.base.decode(latents, seed)
