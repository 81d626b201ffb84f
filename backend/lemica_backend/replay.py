"""Measure what a reused segment costs, with the very code that serves (implements `lemica_planner.Replayer`)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lemica_backend.blocks.engine_stack import most_rows
from lemica_backend.config import ModelConfig, load_config
from lemica_backend.denoise import denoise
from lemica_backend.differences import METRICS, final_difference, latents_difference
from lemica_backend.errors import LemicaError, ModelLoadError
from lemica_backend.job import Job, start_job
from lemica_backend.leaps import LeapSession, leap_operators
from lemica_backend.models import VideoModel
from lemica_backend.opening import open_model
from lemica_backend.operators import OPERATORS, SPLIT
from lemica_backend.planned import plan_request
from lemica_backend.sample_request import request_of
from lemica_backend.sampler_time import sampler_times
from lemica_backend.step_cache import GUIDED, NOISE, StepCache
from lemica_backend.yardstick import EngineYardstick, Judges, with_sampler, with_steps
from lemica_planner import CalibrationError, PlanEntry, Provenance, Sample
from lemica_planner.replayer import KnownNames, OperatorFacts, ReplaySession, Segment, knows
from lemica_planner.samplers import Sampler, Way

_ROWS_AT_ONCE = 16  # jobs whose hidden states are in memory together while drifts are measured


class EngineReplayer:
    """Replays cached segments of a model's own trajectories.

    Parameters
    ----------
    model : VideoModel
    config : ModelConfig
        Its defaults are the parameters that the errors, and so the plans, are valid for.
    name : str
        The model's name in the repository.
    metric : str
        What errors measure, one of `lemica_backend.differences.METRICS`.

    Attributes
    ----------
    judges : Judges
        What `yardstick` measures.
    keep : Path or None
        Where its references stay for a later run; nowhere by default.
    """

    def __init__(self, model: VideoModel, config: ModelConfig, name: str, metric: str = "latents_l1") -> None:
        latents_difference(metric)  # an unknown one is refused before the work
        self._metric = metric
        self._model = model
        self._config = config
        self._name = name
        self.judges = Judges()
        self.keep: Path | None = None

    def provenance(self) -> Provenance:
        """Return what the measured errors depend on."""
        info, defaults = self._model.info, self._config.defaults
        return Provenance(
            model=self._name,
            num_inference_steps=defaults.num_inference_steps,
            guidance_scale=defaults.guidance_scale,
            operator="residual",
            metric=self._metric,
            block_engine=None if info.block_engine == "eager" else info.block_engine,
            **info.plan_facts,
        )

    def operators(self) -> dict[str, OperatorFacts]:
        """Return the reuse operators by name; without guidance there is nothing to split."""
        guided = "uncond" in self._model.branches(self._config.defaults.guidance_scale)
        return {
            name: OperatorFacts(each.order, each.fits) for name, each in OPERATORS.items() if guided or name != SPLIT
        }

    def resampled(self, sampler: Sampler, num_steps: int) -> EngineReplayer:
        """Return a replayer of the same weights with another sampler and number of steps."""
        with _naming(f"the sampler {sampler.name!r}"):
            model = with_sampler(self._model, sampler)
        return EngineReplayer(model, with_steps(self._config, num_steps), self._name, self._metric)

    def leaps(self, sampler: Sampler, num_steps: int) -> LeapReplayer:
        """Return a replayer of the same weights whose one operator is a bigger step of the sampler itself."""
        with _naming(f"the sampler {sampler.name!r}"):
            model = with_sampler(self._model, sampler)
        return LeapReplayer(model, with_steps(self._config, num_steps), self._name, self._metric)

    def timesteps(self, sampler: Sampler, num_steps: int) -> tuple[float, ...]:
        """Return the sampler's timesteps, falling."""
        with _naming(f"the sampler {sampler.name!r}"):
            return tuple(with_sampler(self._model, sampler).new_scheduler(num_steps).timesteps.tolist())

    def measures(self) -> list[str]:
        """Return the names of what a yardstick measures."""
        return [*self.judges.pairs, *self.judges.alone]

    def yardstick(self, sample: Sample, references: Mapping[str, Way]) -> EngineYardstick:
        """Make the sample's reference videos."""
        with _naming(f"the sample {sample.prompt[:80]!r}"):
            return EngineYardstick(self._model, self._config, sample, references, judges=self.judges, keep=self.keep)

    def switches(self) -> frozenset[int]:
        """Return the steps at which the model's other weights take over."""
        scheduler = self._model.new_scheduler(self._config.defaults.num_inference_steps, seed=0)
        return self._model.switches(scheduler.timesteps)

    def open(self, sample: Sample) -> ReplaySession:
        """Run the sample once without reuse, keeping every step's state."""
        return EngineReplay(self._model, self._start(sample), self._metric)

    def _start(self, sample: Sample) -> Job:
        with _naming(f"the sample {sample.prompt[:80]!r}"), torch.inference_mode():
            request = request_of(sample, self._config.limits)
            planned = plan_request(request, info=self._model.info, config=self._config, plan=None)
            return start_job(self._model, planned)


class LeapReplayer(EngineReplayer):
    """Replays bigger steps of the model's sampler; see `lemica_backend.leaps`."""

    def operators(self) -> dict[str, OperatorFacts]:
        """Return the one operator, ``leap``."""
        return leap_operators(self._model.new_scheduler(self._config.defaults.num_inference_steps))

    def open(self, sample: Sample) -> ReplaySession:
        """Run the sample once in fine steps, keeping every step's state."""
        return LeapSession(self._model, self._start(sample), self._metric)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Turn the engine's errors into the planner's, with what they are about."""
    try:
        yield
    except LemicaError as error:
        raise CalibrationError(f"{what} cannot be used: {error}") from error


class EngineReplay:
    """One sample's full trajectory, and the errors of its reused segments.

    Holds of every step the latents, one residual a branch and the guided output.
    """

    def __init__(self, model: VideoModel, job: Job, metric: str) -> None:
        self._model = model
        self._on_the_way, self._at_the_end = latents_difference(metric), final_difference(metric, model)
        self._times = sampler_times(job.scheduler)
        self._switches = model.switches(job.scheduler.timesteps)
        most = most_rows(model)
        self._at_once = None if most is None else max(1, most // len(job.texts))  # more would not run on the engine
        job.cache = self._cache(("residual", "output", "noise"))
        self._before = [_fork(job)]  # the state before each step, and at the end
        while not job.is_finished:
            denoise(model, [job])
            self._before.append(_fork(job))

    def errors(self, segments: Sequence[Segment]) -> NDArray[np.float64]:
        """Return what each segment changes in the final latents (arXiv 2511.00090, equation 4)."""
        jobs = self._skip(segments)
        self._run(jobs, [self._num_steps] * len(jobs))
        return self._differences(jobs)

    def drifts(self, segments: Sequence[Segment]) -> NDArray[np.float64]:
        """Return what each segment changes in the latents that enter its end step.

        Segments that begin alike run once, as far as the longest of them.
        """
        chains = {_beginning(segment): segment for segment in sorted(segments, key=lambda segment: segment.end)}
        jobs = [self._fork_segment(segment) for segment in chains.values()]
        seen: dict[tuple[_Beginning, int], float] = {}
        for step in range(min(job.step for job in jobs), max(segment.end for segment in segments)):
            due = [
                (job, key)
                for job, (key, longest) in zip(jobs, chains.items(), strict=True)
                if job.step == step < longest.end
            ]
            for at in range(0, len(due), _ROWS_AT_ONCE):
                some = due[at : at + _ROWS_AT_ONCE]
                denoise(self._model, [job for job, _ in some])
                arrived = self._differences([job for job, _ in some])
                seen |= {(key, step + 1): float(value) for (_, key), value in zip(some, arrived, strict=True)}
        return np.asarray([seen[_beginning(segment), segment.end] for segment in segments])

    def outcomes(self, paths: Sequence[PlanEntry]) -> NDArray[np.float64]:
        """Return what each whole path changes in the final latents."""
        jobs = [self._fork_path(path) for path in paths]
        self._run(jobs, [self._num_steps] * len(jobs))
        return self._differences(jobs)

    def grams(self) -> dict[str, NDArray[np.float64]]:
        """Return by source the products of every two steps' values, a mean over elements, shape (T, T)."""
        kept = [job.cache.latest() for job in self._before[1:]]
        grams = {
            "output": _gram([[values[GUIDED]] for values in kept]),
            "noise": _gram([[values[NOISE]] for values in kept]),
            "residual": _gram([[values[branch] for branch in self._before[0].texts] for values in kept]),
        }
        if "uncond" in self._before[0].texts:
            grams["cond"] = _gram([[values["cond"]] for values in kept])
            grams["guidance"] = _gram([[values["cond"] - values["uncond"]] for values in kept])
        return grams

    @property
    def _num_steps(self) -> int:
        return len(self._before) - 1

    def _skip(self, segments: Sequence[Segment]) -> list[Job]:
        """Return jobs that have skipped their segments and are about to compute their ends."""
        jobs = [self._fork_segment(segment) for segment in segments]
        self._run(jobs, [segment.end for segment in segments])
        return jobs

    def _run(self, jobs: Sequence[Job], ends: Sequence[int]) -> None:
        """Take each job to its end; jobs that are at the same step go together."""
        for step in range(min(job.step for job in jobs), max(ends)):
            due = [job for job, end in zip(jobs, ends, strict=True) if job.step == step < end]
            size = self._at_once or max(1, len(due))
            for at in range(0, len(due), size):
                denoise(self._model, due[at : at + size])

    def _fork_path(self, path: PlanEntry) -> Job:
        job = _fork(self._before[0])
        reuse = path.reuse("residual")
        job.cache = self._cache({fill.operator for fill in reuse.values()})
        job.planned = dataclasses.replace(job.planned, computed=frozenset(path.steps), reuse=reuse)
        return job

    def _fork_segment(self, segment: Segment) -> Job:
        """Return the job that has computed the segment's start and, before it, its history."""
        job = _fork(self._before[segment.start + 1])
        job.cache = self._cache((segment.operator,))
        for step in (*segment.history, segment.start):
            for key, value in self._before[step + 1].cache.latest().items():
                job.cache.record(step, key, value)
        computed = frozenset(range(segment.end, self._num_steps))
        job.planned = dataclasses.replace(job.planned, computed=computed, reuse=segment.fills)
        return job

    def _cache(self, operators: Collection[str]) -> StepCache:
        return StepCache(self._times, operators, self._switches)

    def _differences(self, jobs: Sequence[Job]) -> NDArray[np.float64]:
        """Return each job's difference from the trajectory at the step where it is."""
        measures = [self._at_the_end if job.is_finished else self._on_the_way for job in jobs]
        return np.asarray(
            [measure(job.latents, self._before[job.step].latents) for measure, job in zip(measures, jobs, strict=True)]
        )

    def close(self) -> None:
        """Free the trajectory."""
        self._before.clear()


_Beginning = tuple[int, str, tuple[int, ...], tuple[tuple[float, ...], ...]]


def _beginning(segment: Segment) -> _Beginning:
    """Return what decides how a segment goes on; the first of its fitted weights stand for all of one fit."""
    return segment.start, segment.operator, segment.history, segment.weights[:1]


def _fork(job: Job) -> Job:
    """Return a job that goes on from the same state; tensors are shared, because no step writes into them."""
    own = copy.deepcopy(job.scheduler), job.cache.copy()
    return Job(job.planned, job.texts, job.latents, *own, job.step, kept=job.kept)


def _gram(values: Sequence[Sequence[Tensor]]) -> NDArray[np.float64]:
    rows = torch.stack([torch.stack(list(parts)).flatten() for parts in values]).double()
    return cast("NDArray[np.float64]", (rows @ rows.T / rows.shape[1]).cpu().numpy())


def newest_version(model_dir: Path) -> Path:
    """Return the version folder that Triton serves by default: the one with the highest number."""
    versions = [path for path in model_dir.iterdir() if path.is_dir() and path.name.isdigit()]
    if not versions:
        raise ModelLoadError(f"{model_dir}: no version folder there, such as {model_dir}/1")
    return max(versions, key=lambda path: int(path.name))


@knows(KnownNames(tuple(OPERATORS), METRICS))
def open_replayer(model_dir: Path, metric: str = "latents_l1") -> EngineReplayer:
    """Open the model folder (the one with ``config.pbtxt``) for calibration; its plan, if any, is ignored."""
    version = newest_version(model_dir)
    config = load_config(version / "model.json")
    return EngineReplayer(open_model(version, config), config, model_dir.resolve().name, metric)
