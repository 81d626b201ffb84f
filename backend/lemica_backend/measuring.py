"""Measure a model when it is loaded: a few real steps, texts and decodings."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence

import torch

from lemica_backend.config import ModelConfig
from lemica_backend.cost_model import DECODE, ENCODE_TEXT, CostModel, Work
from lemica_backend.denoise import denoise
from lemica_backend.errors import ModelLoadError
from lemica_backend.image_file import usual_image
from lemica_backend.job import Job, start_job
from lemica_backend.models.base import VideoModel
from lemica_backend.operators import OPERATORS
from lemica_backend.planned import FULL, PlannedRequest, plan_request
from lemica_backend.profile import OF_BRANCHES, BranchRows, Profile
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, Fill

_COUNTS = (1, 2, 4)  # requests in a tick
_COMPUTED = 1  # step of a round
_ROUNDS = 5
_log = logging.getLogger(__name__)


def measure_profile(model: VideoModel, config: ModelConfig, plan: CachePlan | None) -> Profile:
    """Run a few real steps: of 1, 2 and 4 requests in a tick, computed and skipped, one text and one decoding.

    All of it is repeated until ``scheduling.warm_up_s`` have passed, and the smallest times count: what disturbs only
    adds. One request is measured to its decoding, however long that takes: promises made without it would be broken.
    At 0, only what ``limits.cache_bytes`` needs to know is run. A step that fails ends it: what the model cannot
    do is found out, and said, when a request asks for it.

    Raises
    ------
    ModelLoadError
        If there is a ``limits.cache_bytes`` that cannot be kept, because the one step that it needs fails.
    """
    usual_rows = len(model.branches(config.defaults.guidance_scale))
    branch_rows = BranchRows(*(len(model.branches(scale)) for scale in (0.5, 1.0, 2.0)))
    profile = Profile(CostModel(config.scheduling.share_margin), branch_rows=branch_rows, usual_rows=usual_rows)
    sources = sorted({OPERATORS[name].source for name in plan.operators}) if plan else []
    try:
        with torch.inference_mode():
            if config.scheduling.warm_up_s or config.limits.cache_bytes:
                profile = _with_sizes(profile, model, config, sources)
            _learn(profile.cost, _rounds(model, config, sources), config.scheduling.warm_up_s)
    except Exception as error:
        if config.limits.cache_bytes and sources and not profile.value_bytes:
            raise ModelLoadError(f"limits.cache_bytes: a step that measures what is cached failed: {error}") from error
        _log.warning("measuring the model at load failed", exc_info=True)
    return profile


def _learn(cost: CostModel, measured: Iterator[tuple[Work, int, float]], limit_s: float) -> None:
    give_up_at = time.perf_counter() + limit_s
    smallest: dict[tuple[Work, int], float] = {}
    for work, count, seconds in measured if limit_s else ():
        smallest[work, count] = min(seconds, smallest.get((work, count), seconds))
        if time.perf_counter() >= give_up_at and (Work(DECODE, 1), 1) in smallest:
            break
    for (work, count), seconds in smallest.items():
        cost.observe([work] * count, seconds)


def timed_tick(model: VideoModel, jobs: Sequence[Job]) -> float:
    """Take one step of every job; return the seconds until the device has done it."""
    started = time.perf_counter()
    denoise(model, jobs)
    latents = jobs[0].latents
    if latents.is_cuda:
        torch.cuda.synchronize(latents.device)
    return time.perf_counter() - started


def measure_sizes(model: VideoModel, config: ModelConfig, plan: CachePlan | None) -> Profile:
    """Measure what must be known, no more; the engine learns times while it serves."""
    scheduling = config.scheduling.model_copy(update={"warm_up_s": 0.0})
    return measure_profile(model, config.model_copy(update={"scheduling": scheduling}), plan)


def _with_sizes(profile: Profile, model: VideoModel, config: ModelConfig, sources: Sequence[str]) -> Profile:
    """Return the profile with the bytes that one computed step leaves in the cache, measured in one."""
    sizes = {}
    for source in sources:
        job = start_job(model, _planned(model, config, (source,)))
        denoise(model, [job])
        sizes[source] = job.cache.nbytes // (len(job.texts) if source in OF_BRANCHES else 1)
    return dataclasses.replace(profile, value_bytes=sizes)


def _rounds(model: VideoModel, config: ModelConfig, sources: Sequence[str]) -> Iterator[tuple[Work, int, float]]:
    """Yield work, how many requests did it at once, and its seconds, as it is done."""
    planned = _planned(model, config, sources)
    steps = min(planned.num_inference_steps, _COMPUTED + len(sources))
    for _ in range(_ROUNDS):
        for count in (count for count in _COUNTS if count <= config.limits.max_active):
            started = time.perf_counter()
            jobs = [start_job(model, planned) for _ in range(count)]
            yield Work(ENCODE_TEXT, 1), 1, (time.perf_counter() - started) / count
            for step in range(steps):
                yield Work(planned.kind(step), len(jobs[0].texts)), count, timed_tick(model, jobs)
            if count == 1:
                started = time.perf_counter()
                model.decode(jobs[0].latents)
                yield Work(DECODE, 1), 1, time.perf_counter() - started


def _planned(model: VideoModel, config: ModelConfig, sources: Sequence[str]) -> PlannedRequest:
    """Return a request that computes its first steps, and then skips one step by each source."""
    request = GenerationRequest("", seed=0, budget=FULL, image=usual_image(model.info))
    planned = plan_request(request, info=model.info, config=config, plan=None)
    reuse = {_COMPUTED + at: Fill(source) for at, source in enumerate(sources)}
    return dataclasses.replace(planned, computed=planned.computed - set(reuse), reuse=reuse)
