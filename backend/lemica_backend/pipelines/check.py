"""Proof, when a pipeline is loaded, that the step cache does to it what it should, by short generations."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lemica_backend.pipelines.loaded import LoadedPipeline, frames_of
from lemica_backend.pipelines.run import Install, PipelineRun
from lemica_backend.pipelines.worker import cache_of
from lemica_backend.planned import PlannedRequest
from lemica_planner import Fill
from lemica_planner.integrations.block_stack import (
    Stack,
    find_stack,
    find_transformer,
    hidden_states,
    with_hidden_states,
)
from lemica_planner.integrations.diffusers import InstalledCache
from lemica_planner.integrations.step_clock import Steps

SKIPPED = 1  # the step that the check skips
_TOLERANCE = 1e-5  # of the latents' scale, for a reused step; where all is computed, not one bit may differ


class Check(NamedTuple):
    """What the check saw of a pipeline.

    Attributes
    ----------
    frames : ndarray of uint8, shape (F, height, width, 3)
    latents : Tensor
        In the pipeline's own shape.
    cached_bytes : int
        Residuals of one computed step.
    seconds : mapping of str to float
        Of ``text``, ``compute``, ``residual`` (a skipped step) and ``decode``.
    """

    frames: NDArray[np.uint8]
    latents: Tensor
    cached_bytes: int
    seconds: Mapping[str, float]


def check_pipeline(loaded: LoadedPipeline, planned: PlannedRequest) -> Check:
    """Generate four times: as it is, with a cache that skips nothing, with one that skips a step, and that by hand.

    Parameters
    ----------
    loaded : LoadedPipeline
    planned : PlannedRequest
        Computes all of its steps, three at least.

    Raises
    ------
    PipelineError
        If the pipeline has no block stack, or the cache cannot work in it.
    ValueError
        If results differ.
    """
    find_stack(find_transformer(loaded.pipeline))  # before minutes are spent
    skipping = dataclasses.replace(planned, computed=planned.computed - {SKIPPED}, reuse={SKIPPED: Fill("residual")})
    plain = _generate(loaded, planned, lambda _: nullcontext())
    _require_equal(plain.latents, _generate(loaded, planned, cache_of(planned)).latents, 0.0, "all steps computed")
    cached = _generate(loaded, skipping, cache_of(skipping))
    by_hand = _generate(loaded, skipping, _reusing_by_hand)
    _require_equal(by_hand.latents, cached.latents, _TOLERANCE, "one step reused")
    return cached._replace(frames=plain.frames)


def _require_equal(expected: Tensor, got: Tensor, tolerance: float, what: str) -> None:
    off = float((expected.float() - got.float()).abs().max() / expected.float().abs().max())
    if not off <= tolerance:
        raise ValueError(
            f"the step cache does not fit this pipeline: with {what}, latents differ from those of "
            f"{'the pipeline itself' if tolerance == 0 else 'reuse by hand'} by {off:.2g} of their scale"
        )


def _generate(loaded: LoadedPipeline, planned: PlannedRequest, install: Install[Any]) -> Check:
    run, clock = PipelineRun[Any](loaded.pipeline, loaded.call(planned), install), _Stopwatch()
    held = 0
    try:
        cache = clock.time("text", run.start)
        for step in range(planned.num_inference_steps):
            clock.time(planned.kind(step), run.step)
            held = max(held, cache.nbytes if isinstance(cache, InstalledCache) else 0)
        frames = frames_of(clock.time("decode", run.finish))
    finally:
        run.drop()
    assert run.latents is not None
    return Check(frames, run.latents, held, clock.smallest)


class _Stopwatch:
    """Keeps the smallest time of each kind of work."""

    def __init__(self) -> None:
        self.smallest: dict[str, float] = {}

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        self.smallest[name] = min(seconds, self.smallest.get(name, seconds))
        return result


@contextmanager
def _reusing_by_hand(pipeline: Any) -> Iterator[None]:
    """Run every block at every step, but give what follows them the sum of the skipped step, made by hand."""
    stack, scheduler = find_stack(pipeline.transformer), pipeline.scheduler
    hand, take_step = _Hand(stack, scheduler), scheduler.step
    scheduler.step = functools.wraps(take_step)(lambda *args, **kwargs: hand.step(take_step(*args, **kwargs)))
    hooks = [stack.blocks[0].register_forward_pre_hook(hand.begin, with_kwargs=True)]
    if stack.last is not None:
        hooks.append(stack.last.register_forward_hook(hand.last))
    if stack.end is not None:
        hooks.append(stack.end.register_forward_pre_hook(hand.end, with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Hand:
    """Remembers the residual of each call of the step before the skipped one."""

    def __init__(self, stack: Stack, scheduler: Any) -> None:
        self._residuals: list[Tensor] = []
        self._start: Tensor | None = None
        self._out: Any = None  # what the last block returned
        self._ends_in_block = True if stack.end is None else None  # None: not seen yet
        self._scheduler, self._steps = scheduler, Steps()
        self._step, self._call = 0, 0

    def step(self, result: Any) -> Any:
        """Go on to the next step, and return what the sampler returned."""
        if self._steps.is_new(self._scheduler):
            self._step, self._call = self._step + 1, 0
        return result

    def begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Keep what enters the stack."""
        self._start = hidden_states(module, args, kwargs).clone()

    def last(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Leave the stack behind its last block, where that is its end."""
        self._out = output
        return self._leave(output) if self._ends_in_block else None

    def end(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Leave the stack before the module after it, where that gets the shape that entered."""
        hidden = hidden_states(module, args, kwargs)
        if self._ends_in_block is None:
            self._ends_in_block = self._start is not None and hidden.shape != self._start.shape
            if self._ends_in_block:
                self._leave(self._out)
        return None if self._ends_in_block else with_hidden_states(self._leave(hidden), args, kwargs)

    def _leave(self, hidden: Tensor) -> Tensor:
        """Keep the residual, or put the sum in the place of what the blocks made."""
        start = self._start
        assert start is not None, "a block runs before the end of the stack"
        if self._step == SKIPPED - 1:
            self._residuals.append(hidden.to(start.dtype) - start)
        if self._step == SKIPPED:
            hidden = (start + self._residuals[self._call]).to(hidden.dtype)
        self._call += 1
        return hidden
