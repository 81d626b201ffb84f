"""What a block engine or quantised weights change in whole videos, in the measure in which a plan's errors are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lemica_backend.config import Blocks, ModelConfig
from lemica_backend.denoise import denoise
from lemica_backend.differences import METRICS, final_difference
from lemica_backend.image_file import usual_image
from lemica_backend.job import start_job
from lemica_backend.models import VideoModel
from lemica_backend.opening import open_model
from lemica_backend.planned import FULL, plan_request
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan

__all__ = ["Change", "measure_change"]


class Change(NamedTuple):
    """How far a model's videos are from those of plain weights run eagerly, with every step computed.

    Attributes
    ----------
    metric : str
        One of `lemica_backend.differences.METRICS`.
    mean, worst : float
        Over the prompts.
    prompts : int
    plan : mapping of str to float
        What skipping steps costs in the same metric, by the plan's named budgets: measured on whole paths where the
        plan has that, else predicted. Empty without a plan.
    """

    metric: str
    mean: float
    worst: float
    prompts: int
    plan: Mapping[str, float]


def measure_change(folder: Path, config: ModelConfig, prompts: Sequence[str], plan: CachePlan | None) -> Change:
    """Generate every prompt as the model is configured and with plain weights run eagerly, from the same noise.

    Parameters
    ----------
    folder : Path
        The version folder.
    config : ModelConfig
        With the engine, whose artifact is there, or the quantisation.
    prompts : sequence of str
        At least one.
    plan : CachePlan or None

    Raises
    ------
    ModelLoadError
        If the model or its engine cannot be loaded.
    InvalidRequestError
        If the model does not take a prompt.
    """
    metric = (plan and plan.provenance.metric) or METRICS[0]
    plain = config.model_copy(update={"blocks": Blocks(), "quantization": None})
    eager = _generate_all(open_model(folder, plain), config, prompts)
    own = config.model_copy(update={"blocks": config.blocks.model_copy(update={"required": True})})
    model = open_model(folder, own)
    compare = final_difference(metric, model)
    ours = _generate_all(model, config, prompts)
    found = [compare(one, other) for one, other in zip(ours, eager, strict=True)]
    return Change(metric, sum(found) / len(found), max(found), len(found), _costs(plan))


def _costs(plan: CachePlan | None) -> dict[str, float]:
    """Return the errors of the named budgets, where they were measured."""
    if plan is None:
        return {}
    entries = {name: plan.resolve(name) for name in plan.names}
    known = {name: each.predicted_error if each.outcome is None else each.outcome for name, each in entries.items()}
    return {name: error for name, error in known.items() if error is not None}


@torch.inference_mode()
def _generate_all(model: VideoModel, config: ModelConfig, prompts: Sequence[str]) -> list[Tensor]:
    """Return the final latents of every prompt, each with a seed of its own, and every step computed."""
    finals = []
    for seed, prompt in enumerate(prompts):
        request = GenerationRequest(prompt, seed=seed, budget=FULL, image=usual_image(model.info))
        job = start_job(model, plan_request(request, info=model.info, config=config, plan=None))
        while not job.is_finished:
            denoise(model, [job])
        finals.append(job.latents)
    return finals
