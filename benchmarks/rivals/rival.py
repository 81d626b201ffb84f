"""What every family of rivals hands over: named ways to denoise one request."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lemica_backend.config import ModelConfig, load_config
from lemica_backend.denoise import denoise
from lemica_backend.job import Job, start_job
from lemica_backend.models import detect_family
from lemica_backend.models.latte import LatteModel
from lemica_backend.planned import FULL, PlannedRequest, plan_request
from lemica_backend.types import GenerationRequest
from lemica_planner import Fill


class OpenLatte(LatteModel):
    """The engine's Latte with its diffusers pipeline in view, for the caches that hook into that."""

    @property
    def pipeline(self) -> Any:
        """The ``LattePipeline`` whose weights this model runs."""
        return self._pipeline

    @property
    def net(self) -> Any:
        """Its ``LatteTransformer3DModel``."""
        return self._net


@dataclass(frozen=True)
class Start:
    """One request before its first step.

    Attributes
    ----------
    model : OpenLatte
    config : ModelConfig
    planned : PlannedRequest
        Every step computed.
    """

    model: OpenLatte
    config: ModelConfig
    planned: PlannedRequest

    def with_steps(self, steps: int) -> Start:
        """Return the same request with another number of sampler steps."""
        request = GenerationRequest(self.planned.prompt, seed=self.planned.seed, num_inference_steps=steps, budget=FULL)
        return dataclasses.replace(self, planned=_full(self.model, self.config, request))


Denoise = Callable[[Start], Tensor]


@dataclass(frozen=True)
class Rival:
    """One method in one setting: a point of the method's curve.

    Attributes
    ----------
    method : str
        The curve.
    setting : str
        The point, short enough for a table.
    recipe : str
        Everything that decides the result, so that another recipe is another row of the results.
    denoise : callable
        Takes a `Start`, returns the final latents, shape (channels, frames, height, width).
    is_recommended : bool
        Whether it is the setting that the method's authors recommend.
    gate : float
        Share of the block stack that runs at every step only to decide about it.
    """

    method: str
    setting: str
    recipe: str
    denoise: Denoise
    is_recommended: bool = False
    gate: float = 0.0

    @property
    def digest(self) -> str:
        """A short fingerprint of the recipe."""
        return hashlib.sha256(self.recipe.encode()).hexdigest()[:12]


def open_latte(model_dir: Path) -> tuple[OpenLatte, ModelConfig]:
    """Load the model folder's weights as the engine does.

    Raises
    ------
    ValueError
        If it is no Latte: diffusers' caches are tried on LattePipeline.
    """
    version = model_dir / "1"
    config = load_config(version / "model.json")
    family = detect_family(version / config.weights)
    if family != "latte":
        raise ValueError(f"{model_dir}: family is {family!r}; rivals are compared on 'latte' only")
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    model = OpenLatte(version / config.weights, dtype=getattr(torch, config.dtype), device=device)
    model.pipeline.set_progress_bar_config(disable=True)
    return model, config


def start(model: OpenLatte, config: ModelConfig, prompt: str, seed: int) -> Start:
    """Return the request for `prompt`, with the model's own defaults."""
    return Start(model, config, _full(model, config, GenerationRequest(prompt, seed=seed, budget=FULL)))


def _full(model: OpenLatte, config: ModelConfig, request: GenerationRequest) -> PlannedRequest:
    return plan_request(request, info=model.info, config=config, plan=None)


def follow(begin: Start, computed: frozenset[int], reuse: Mapping[int, Fill]) -> Tensor:
    """Denoise with the serving engine: compute these steps, make the others of what `reuse` says."""
    job = begin_job(begin, computed, reuse)
    while not job.is_finished:
        denoise(begin.model, [job])
    return job.latents


@torch.inference_mode()
def begin_job(begin: Start, computed: frozenset[int], reuse: Mapping[int, Fill]) -> Job:
    """Encode the text, draw the noise, and make a step cache for the operators that `reuse` names."""
    return start_job(begin.model, dataclasses.replace(begin.planned, computed=computed, reuse=reuse))


def run_full(begin: Start) -> Tensor:
    """Compute every step: the reference of all rivals."""
    return follow(begin, begin.planned.computed, {})
