"""Load a model that ``model.json`` describes, and what the engine must know of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lemica_backend.blocks.installing import install_engine
from lemica_backend.config import PIPELINE, ModelConfig
from lemica_backend.context_parallel import Follower, Group
from lemica_backend.errors import ModelLoadError
from lemica_backend.local_worker import LocalWorker
from lemica_backend.measuring import measure_profile, measure_sizes
from lemica_backend.models import VideoModel, load_model, resample
from lemica_backend.models.attention import use_attention_backend
from lemica_backend.models.autoencoders import cut_decoding
from lemica_backend.pipelines.opening import open_pipeline
from lemica_backend.process_worker import Recipe
from lemica_backend.profile import Profile
from lemica_backend.worker import Facts, Worker
from lemica_planner import CachePlan


def open_model(model_dir: Path, config: ModelConfig, device: str | None = None) -> VideoModel:
    """Load the weights that ``model.json`` names, onto its first device or the one given; raises `ModelLoadError`."""
    if config.family == PIPELINE:
        raise ModelLoadError(
            "model.json: family 'pipeline' runs a pipeline as it is, which can neither be calibrated nor taken apart; "
            "get its plan from `lemica-planner apply --published` or `lemica-planner import`"
        )
    _use_threads(config)
    model = load_model(
        config.family,
        _weights(model_dir, config),
        dtype=getattr(torch, config.dtype),
        device=_device(device or config.worker_devices[0]),
        size=config.size,
        options=config.options,
        memory=config.memory,
    )
    if config.attention_backend:
        place = {"device": _device(device or config.worker_devices[0]), "dtype": getattr(torch, config.dtype)}
        use_attention_backend(model.networks, config.attention_backend, **place)
    install_engine(model, model_dir, config)
    cut_decoding(model.autoencoder, config.decode)
    return resample(model, config.scheduler) if config.scheduler else model


def open_worker(
    model_dir: Path,
    config: ModelConfig,
    device: str,
    plan_json: str | None,
    others: Sequence[str] = (),
    *,
    measures: bool,
) -> Worker:
    """Load the model onto a device, and onto others that share its work (`lemica_backend.context_parallel`).

    It is what `lemica_backend.process_worker` runs in its child.
    """
    if config.family == PIPELINE:
        if config.blocks.engine != "eager":
            raise ModelLoadError(
                f"model.json, blocks.engine: got {config.blocks.engine!r}; family 'pipeline' takes 'eager' only"
            )
        _use_threads(config)
        return open_pipeline(_weights(model_dir, config), config, _device(device))
    plan = CachePlan.from_json(plan_json) if plan_json else None
    group = _start_group(model_dir, config, (device, *others)) if others else None
    model = open_model(model_dir, config, device)
    if group:
        group.share(model)
    measure = measure_profile if measures else measure_sizes
    return LocalWorker(model, facts_of(model, config, plan, measure(model, config, plan)))


def open_follower(model_dir: Path, config: ModelConfig, device: str, *, measures: bool) -> Follower:
    """Load the model onto a device that computes for another one's worker, which measures."""
    return Follower(open_model(model_dir, config, device))


def _start_group(model_dir: Path, config: ModelConfig, devices: Sequence[str]) -> Group:
    recipes = [Recipe(__name__, "open_follower", (model_dir, config, device)) for device in devices[1:]]
    return Group(devices, recipes, config.limits.worker_timeout_s)


def _use_threads(config: ModelConfig) -> None:
    if config.threads:
        torch.set_num_threads(config.threads)


def facts_of(model: VideoModel, config: ModelConfig, plan: CachePlan | None, profile: Profile) -> Facts:
    """Return what the engine must know of a model beside what was measured."""
    steps = (plan and plan.provenance.num_inference_steps) or config.defaults.num_inference_steps
    scheduler = model.new_scheduler(steps, seed=0)
    return Facts(model.info, profile, model.switches(scheduler.timesteps))


def _weights(model_dir: Path, config: ModelConfig) -> Path:
    folder = config.weights_dir(model_dir)
    if folder is not None:
        return folder
    assert config.hub_id is not None
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only a server that may download needs it

    try:
        return Path(snapshot_download(config.hub_id, revision=config.hub_revision))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"model.json: cannot get hub_id {config.hub_id!r}: {error}") from error


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
