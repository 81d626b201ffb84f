"""One generation of a pipeline, in a thread of its own, that takes a step whenever it is told to."""

from __future__ import annotations

import copy
import functools
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from lemica_planner.integrations.step_clock import Steps

C = TypeVar("C")
Install = Callable[[Any], AbstractContextManager[C]]
_WAIT_S = 0.5  # between two looks at a thread that may have died


class _DroppedError(BaseException):
    """Unwinds the pipeline of a request that nobody wants any more."""


@dataclass(frozen=True)
class _Ended:
    output: Any = None
    error: BaseException | None = None


class PipelineRun(Generic[C]):
    """A call of a pipeline that stops before its first step and after every one.

    The call runs in a thread, and only while `start`, `step` or `finish` waits for it, so there is one at a time.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        Its scheduler is a copy until the call ends.
    call : mapping
        The arguments.
    install : callable
        Puts something into the pipeline, such as a step cache, which leaves when the call ends.
    """

    def __init__(self, pipeline: Any, call: Mapping[str, Any], install: Install[C]) -> None:
        self.latents: Tensor | None = None  # after the last step, in the pipeline's own shape
        self._pipeline, self._call, self._install = pipeline, call, install
        self._undo = ExitStack()
        self._go = threading.Semaphore(0)
        self._is_dropped = False
        self._has_begun = False
        self._told: queue.SimpleQueue[Tensor | _Ended | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="lemica-pipeline", daemon=True)

    def start(self) -> C:
        """Run up to the first step: texts are encoded, noise is drawn. Return what was installed.

        Raises what the pipeline raises.
        """
        try:
            installed = self._prepare()
        except BaseException:
            self._undo.close()
            raise
        self._thread.start()
        self._hear()
        return installed

    def step(self) -> None:
        """Take one step; `latents` are those after it. Raises what the pipeline raises."""
        self._go.release()
        self.latents = self._hear()

    def finish(self) -> Any:
        """Run to the end, and return what the call returned."""
        self._go.release()
        ended = self._next()
        if not isinstance(ended, _Ended):
            raise RuntimeError("the pipeline takes more steps than it was asked for")
        self._undo.close()
        if ended.error is not None:
            raise ended.error
        return ended.output

    def drop(self) -> None:
        """End the call where it is, and give the pipeline back; harmless when it has ended."""
        self._is_dropped = True
        self._go.release()
        if self._thread.is_alive():
            self._thread.join()
        self._undo.close()

    def _prepare(self) -> C:
        pipeline, before = self._pipeline, self._pipeline.scheduler
        pipeline.scheduler = copy.deepcopy(before)  # samplers of several steps keep what the last call left
        self._undo.callback(setattr, pipeline, "scheduler", before)
        installed = self._undo.enter_context(self._install(pipeline))
        self._watch(pipeline.scheduler)
        hook = pipeline.transformer.register_forward_pre_hook(lambda *_: self._before_first())
        self._undo.callback(hook.remove)
        return installed

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                output = self._pipeline(**self._call)
        except BaseException as error:
            self._told.put(_Ended(error=error))
        else:
            self._told.put(_Ended(output))

    def _watch(self, scheduler: Any) -> None:
        take_step, steps = scheduler.step, Steps()

        @functools.wraps(take_step)  # pipelines read the signature
        def step(*args: Any, **kwargs: Any) -> Any:
            result = take_step(*args, **kwargs)
            if steps.is_new(scheduler):
                self._pause(result[0])
            else:  # the step that was stopped after, taken once more: nobody waits for another
                self.latents = result[0]
            return result

        scheduler.step = step
        self._undo.callback(setattr, scheduler, "step", take_step)

    def _before_first(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._pause(None)

    def _pause(self, latents: Tensor | None) -> None:
        self._told.put(latents)
        self._go.acquire()
        if self._is_dropped:
            raise _DroppedError

    def _hear(self) -> Tensor | None:
        """Return the latents of the next stop."""
        told = self._next()
        if not isinstance(told, _Ended):
            return told
        self._undo.close()
        raise told.error or RuntimeError("the pipeline takes fewer steps than it was asked for")

    def _next(self) -> Tensor | _Ended | None:
        while True:
            try:
                return self._told.get(timeout=_WAIT_S)
            except queue.Empty:
                if not self._thread.is_alive() and self._told.empty():
                    raise RuntimeError("the pipeline's thread is gone") from None
