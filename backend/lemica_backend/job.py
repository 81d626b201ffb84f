"""The state of one request between two denoising steps; it dies with the request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from lemica_backend.models.base import Scheduler, Text, VideoModel
from lemica_backend.operators import OPERATORS
from lemica_backend.planned import PlannedRequest
from lemica_backend.sampler_time import sampler_times
from lemica_backend.step_cache import StepCache
from lemica_backend.types import Branch
from lemica_planner import Fill


@dataclass
class Job:
    """A request on its way through the steps.

    Attributes
    ----------
    planned : PlannedRequest
        What was asked for, with every default filled in, and the steps to compute.
    texts : dict of Branch to Text
        The branches in the order in which guidance combines them.
    latents : Tensor, shape ``ModelInfo.latents_shape``
    scheduler : Scheduler
        This request's own.
    cache : StepCache
    step : int
        The next step to take, 0-based.
    step_ms : list of (float, bool)
        For each step taken: its wall time in ms, and whether it was computed.
    kept : Tensor or None
        The first latent frames (C, f, h, w) where they are the request's image, which no step changes.
    """

    planned: PlannedRequest
    texts: dict[Branch, Text]
    latents: Tensor
    scheduler: Scheduler
    cache: StepCache
    step: int = 0
    step_ms: list[tuple[float, bool]] = field(default_factory=list)
    kept: Tensor | None = None

    @property
    def is_finished(self) -> bool:
        """Whether no step is left."""
        return self.step == self.planned.num_inference_steps

    @property
    def computes(self) -> bool:
        """Whether the next step runs the block stack."""
        return self.step in self.planned.computed

    @property
    def fill(self) -> Fill:
        """What the next step, which is skipped, is made of."""
        return self.planned.reuse[self.step]

    @property
    def enters_model(self) -> bool:
        """Whether the next step runs stem and head, with or without the block stack."""
        return self.computes or OPERATORS[self.fill.operator].source == "residual"

    @property
    def model_input(self) -> Tensor:
        """The latents as the model wants them: Euler's grow with the noise and are scaled down."""
        scale = getattr(self.scheduler, "scale_model_input", None)
        return self.latents if scale is None else cast(Tensor, scale(self.latents, self.timestep))

    @property
    def timestep(self) -> Tensor:
        """The scheduler's timestep of the next step, a scalar."""
        return self.scheduler.timesteps[self.step]


def start_job(model: VideoModel, planned: PlannedRequest) -> Job:
    """Encode text and image, and draw the noise."""
    branches = model.branches(planned.guidance_scale)
    scheduler = model.new_scheduler(planned.num_inference_steps, planned.seed)
    switches = model.switches(scheduler.timesteps)
    texts, kept = model.encode_text(planned.prompt, planned.negative_prompt, branches, planned.guidance_scale), None
    if planned.image is not None:
        texts, kept = model.show(texts, planned.image, planned.seed)
    noise = model.initial_noise(planned.seed) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    return Job(
        planned=planned,
        texts=texts,
        latents=keep_first(noise, kept),
        scheduler=scheduler,
        cache=StepCache(sampler_times(scheduler), planned.operators, switches, planned.checks),
        kept=kept,
    )


def keep_first(latents: Tensor, kept: Tensor | None) -> Tensor:
    """Return latents (C, F, h, w) whose first frames are the kept ones."""
    return latents if kept is None else torch.cat([kept, latents[:, kept.shape[1] :]], dim=1)
