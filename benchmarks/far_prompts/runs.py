"""Run plans on videos, each once: what the folder holds is not run again, so an interrupted benchmark goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.far_prompts.watch import Forecasts, Seen, WatchedCache
from lemica_backend.config import ModelConfig
from lemica_backend.denoise import denoise
from lemica_backend.differences import final_difference
from lemica_backend.job import Job, start_job
from lemica_backend.models import VideoModel
from lemica_backend.planned import FULL, PlannedRequest, plan_request
from lemica_backend.sampler_time import sampler_times
from lemica_backend.types import GenerationRequest
from lemica_planner import PlanEntry, Sample

__all__ = ["METRICS", "Result", "Runs", "Way"]

METRICS = ("latents_l1", "frames_l2")


class Way(NamedTuple):
    """A plan's entry to run, and what to compare its computed steps with; None: nothing."""

    entry: PlanEntry
    forecasts: Forecasts | None = None

    @property
    def key(self) -> str:
        """What decides the result, as a short text."""
        path = [self.entry.steps, self.entry.operators, sorted(self.entry.weights.items())]
        looks = self.forecasts and [[step, sorted(fills.items())] for step, fills in self.forecasts.items()]
        return hashlib.sha256(json.dumps([path, looks]).encode()).hexdigest()[:16]


class Result(NamedTuple):
    """How far a video is from the full one, by metric, and what its computed steps said, if anybody looked."""

    errors: dict[str, float]
    seen: Seen


class Runs:
    """Runs ways to make a sample, beside its full video.

    Parameters
    ----------
    model : VideoModel
    config : ModelConfig
    folder : Path
        For ``runs.jsonl`` and the full videos' latents; made if it is not there.

    Raises
    ------
    ValueError
        If the folder is of another model.
    """

    def __init__(self, model: VideoModel, config: ModelConfig, folder: Path) -> None:
        self._model, self._config, self._folder = model, config, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "runs.jsonl"
        self._known: dict[tuple[Sample, str], Result] = {}
        self._read(json.dumps({"weights_hash": model.info.weights_hash, "defaults": config.defaults.model_dump()}))
        self._measures = {metric: final_difference(metric, model) for metric in METRICS}

    def results(self, sample: Sample, ways: Sequence[Way]) -> list[Result]:
        """Return each way's result; what is missing runs now, all in one batch."""
        missing = {way.key: way for way in ways if (sample, way.key) not in self._known}
        if missing:
            self._run(sample, missing)
        return [self._known[sample, way.key] for way in ways]

    def _run(self, sample: Sample, ways: dict[str, Way]) -> None:
        planned = plan_request(
            GenerationRequest(sample.prompt, seed=sample.seed, budget=FULL),
            info=self._model.info,
            config=self._config,
            plan=None,
        )
        stored = self._folder / f"full-{hashlib.sha256(json.dumps(sample).encode()).hexdigest()[:16]}.pt"
        with torch.inference_mode():
            jobs = [self._start(planned, way) for way in ways.values()]
            extra = [] if stored.exists() else [start_job(self._model, planned)]
            for _ in range(planned.num_inference_steps):
                denoise(self._model, [*jobs, *extra])
            if extra:
                torch.save(extra[0].latents, stored)
            self._keep(sample, dict(zip(ways, jobs, strict=True)), torch.load(stored))

    def _start(self, planned: PlannedRequest, way: Way) -> Job:
        reuse = way.entry.reuse("residual")
        job = start_job(self._model, dataclasses.replace(planned, computed=frozenset(way.entry.steps), reuse=reuse))
        if way.forecasts is not None:
            job.cache = WatchedCache(sampler_times(job.scheduler), way.forecasts, planned.guidance_scale)
        return job

    def _keep(self, sample: Sample, jobs: dict[str, Job], full: Tensor) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            for key, job in jobs.items():
                errors = {metric: measure(job.latents, full) for metric, measure in self._measures.items()}
                seen = job.cache.seen if isinstance(job.cache, WatchedCache) else {}
                self._known[sample, key] = Result(errors, seen)
                file.write(json.dumps({"sample": sample.to_list(), "way": key, "errors": errors, "seen": seen}) + "\n")

    def _read(self, header: str) -> None:
        """Take in what was run before; a torn last line is run again."""
        text = self._file.read_text(encoding="utf-8") if self._file.exists() else header + "\n"
        first, *lines = text[: text.rfind("\n")].split("\n")
        if first != header:
            raise ValueError(f"{self._file} is of another model; give another folder")
        self._file.write_text("\n".join([first, *lines, ""]), encoding="utf-8")
        for line in map(json.loads, lines):
            self._known[Sample(*line["sample"]), line["way"]] = Result(line["errors"], _numbered(line["seen"]))


def _numbered(seen: dict[str, Any]) -> Seen:
    return {int(step): looks for step, looks in seen.items()}
