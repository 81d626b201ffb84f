"""Load a pipeline, prove that the step cache fits it, and tell the engine what it must know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lemica_backend.config import ModelConfig
from lemica_backend.cost_model import DECODE, ENCODE_TEXT, CostModel, Work
from lemica_backend.errors import ModelLoadError
from lemica_backend.model_info import ModelInfo
from lemica_backend.models.quantizing import stated_hash
from lemica_backend.models.weights_hash import hash_weights
from lemica_backend.pipelines.check import Check, check_pipeline
from lemica_backend.pipelines.loaded import LoadedPipeline, load_pipeline
from lemica_backend.pipelines.worker import PipelineWorker
from lemica_backend.planned import FULL, plan_request
from lemica_backend.profile import BranchRows, Profile
from lemica_backend.types import GenerationRequest
from lemica_backend.worker import Facts
from lemica_planner.integrations.pipeline_facts import scheduler_facts

OPERATORS = frozenset({"residual"})  # a hook sees what enters and leaves the stack, not the sampler
_STEPS = 4  # of the check: one is skipped, and samplers of several steps look back
_WORK = {"text": ENCODE_TEXT, "decode": DECODE}


def open_pipeline(weights: Path, config: ModelConfig, device: str) -> PipelineWorker:
    """Load a pipeline and check it.

    Raises
    ------
    ModelLoadError
        If it cannot be loaded, or the step cache does not fit it; the message says why.
    """
    try:
        loaded = load_pipeline(weights, config, device)
        checked = _check(loaded, config)
    except Exception as error:  # whatever a pipeline that nobody here knows raises
        raise ModelLoadError(f"cannot serve the pipeline in {weights}: {type(error).__name__}: {error}") from error
    info = _info(loaded, checked, stated_hash(hash_weights(weights), config.quantization))
    return PipelineWorker(loaded, Facts(info, _profile(checked), operators=OPERATORS))


def _check(loaded: LoadedPipeline, config: ModelConfig) -> Check:
    unknown = ModelInfo("pipeline", _max_steps(loaded), "", "", {}, 0, 0, 0, ())
    steps = max(_STEPS, config.limits.min_steps)
    request = GenerationRequest("a check", seed=0, budget=FULL, num_inference_steps=steps)
    return check_pipeline(loaded, plan_request(request, info=unknown, config=config, plan=None))


def _info(loaded: LoadedPipeline, checked: Check, weights_hash: str) -> ModelInfo:
    facts: dict[str, Any] = scheduler_facts(loaded.pipeline.scheduler)
    num_frames, height, width, _ = checked.frames.shape
    return ModelInfo(
        family="pipeline",
        max_steps=_max_steps(loaded),
        weights_hash=weights_hash,
        **facts,
        num_frames=num_frames,
        height=height,
        width=width,
        latents_shape=tuple(checked.latents.shape[1:]),
        makes_schedule=True,
    )


def _profile(checked: Check) -> Profile:
    cost = CostModel()
    for name, seconds in checked.seconds.items():
        cost.observe([Work(_WORK.get(name, name), 1)], seconds)
    return Profile(cost, {"residual": checked.cached_bytes}, BranchRows(1, 1, 1), usual_rows=1)


def _max_steps(loaded: LoadedPipeline) -> int:
    return int(getattr(loaded.pipeline.scheduler.config, "num_train_timesteps", 1000))
