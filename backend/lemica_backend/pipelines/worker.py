"""A worker that runs a pipeline of diffusers as it is, for one request at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lemica_backend.errors import GenerationError
from lemica_backend.pipelines.loaded import LoadedPipeline, frames_of
from lemica_backend.pipelines.run import Install, PipelineRun
from lemica_backend.planned import PlannedRequest
from lemica_backend.worker import Decoded, Facts, Started, Stepped
from lemica_planner import CachePlan, Provenance
from lemica_planner.integrations.diffusers import InstalledCache, apply


class PipelineWorker:
    """See `lemica_backend.worker.Worker`. ``limits.max_active`` is 1, so there is one started request.

    Parameters
    ----------
    loaded : LoadedPipeline
    facts : Facts
    """

    is_lost = False

    def __init__(self, loaded: LoadedPipeline, facts: Facts) -> None:
        self.facts = facts
        self._loaded = loaded
        self._runs: dict[int, Generation] = {}

    def start(self, number: int, planned: PlannedRequest) -> Started:
        """Encode the text and draw the noise."""
        began = time.perf_counter()
        generation = Generation(self._loaded, planned)
        self._runs[number] = generation
        generation.start()
        return Started(1, time.perf_counter() - began)

    def step(self, numbers: Sequence[int], most: int = 1) -> Stepped:
        """Take one denoising step of the request, however many might be taken."""
        began, failures = time.perf_counter(), {}
        for number in numbers:
            try:
                self._runs[number].step()
            except Exception as error:
                failures[number] = error
        held = {number: self._runs[number].cached_bytes for number in numbers}
        return Stepped(time.perf_counter() - began, held, failures)

    def replan(self, number: int, planned: PlannedRequest) -> None:
        """Let the request go on as this one says."""
        self._runs[number].replan(planned)

    def decode(self, number: int) -> Decoded:
        """Let the pipeline decode, and end."""
        return self._runs[number].decode()

    def preview(self, number: int) -> NDArray[np.uint8] | None:
        """Return None: a pipeline decodes at its end only."""
        return None

    def drop(self, number: int) -> None:
        """Forget a request."""
        generation = self._runs.pop(number, None)
        if generation:
            generation.drop()

    def close(self) -> None:
        """Forget all of them."""
        for number in list(self._runs):
            self.drop(number)


class Generation:
    """One request on its way through a pipeline."""

    def __init__(self, loaded: LoadedPipeline, planned: PlannedRequest) -> None:
        self._planned = planned
        self._step_ms: list[tuple[float, bool]] = []
        self._run = PipelineRun[InstalledCache](loaded.pipeline, loaded.call(planned), cache_of(planned))
        self._cache: InstalledCache | None = None

    def start(self) -> None:
        """Run up to the first step."""
        self._cache = self._run.start()

    def step(self) -> None:
        """Take one step; raises `GenerationError` if its latents are not finite."""
        began, step = time.perf_counter(), len(self._step_ms)
        self._run.step()
        assert self._run.latents is not None
        is_finite = bool(torch.isfinite(self._run.latents).all())  # waits for the device, too
        self._step_ms.append(((time.perf_counter() - began) * 1e3, step in self._planned.computed))
        if not is_finite:
            raise GenerationError(
                f"the latents are not finite (NaN or infinity) after step {step}; try another seed or guidance_scale"
            )

    def replan(self, planned: PlannedRequest) -> None:
        """Go on by another path."""
        self._planned = planned
        if self._cache:
            self._cache.change(sorted(planned.computed))

    def decode(self) -> Decoded:
        """Run to the end."""
        began = time.perf_counter()
        frames = frames_of(self._run.finish())
        assert self._run.latents is not None
        latents = self._run.latents.float().cpu().numpy()
        return Decoded(frames, latents, tuple(self._step_ms), None, time.perf_counter() - began)

    @property
    def cached_bytes(self) -> int:
        """Bytes that the step cache holds."""
        return self._cache.nbytes if self._cache else 0

    def drop(self) -> None:
        """End it where it is."""
        self._run.drop()


def cache_of(planned: PlannedRequest) -> Install[InstalledCache]:
    """Return what installs the step cache of a request; what its plan is for was compared when it was accepted."""
    steps = tuple(sorted(planned.computed))
    plan = CachePlan.from_steps(Provenance(num_inference_steps=planned.num_inference_steps), {len(steps): steps})
    return lambda pipeline: apply(pipeline, plan, len(steps), may_change=len(planned.courses) > 1)
