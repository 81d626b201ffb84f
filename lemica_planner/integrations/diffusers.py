"""Run a cache plan inside a diffusers text-to-video pipeline, in one line and without a server.

>>> from lemica_planner.integrations.diffusers import apply  # doctest: +SKIP
>>> with apply(pipeline, plan, "fast"):  # doctest: +SKIP
...     video = pipeline("a red circle moving right").frames

At a skipped step the blocks do not run: the first module after them gets what entered them plus the residual of the
last computed step (arXiv 2511.00090, section 3.1), or a forecast of it from the last few. Where that module gets
another shape, as in Kandinsky 5, or none follows, as in Z-Image, the last block returns that. Steps are counted by
watching the pipeline's scheduler, so callers pass no callbacks. With `block_stack` and `stack_cache`, this is the only
module of the planner that imports torch and diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import BaseState, StateManager
from torch import nn

from lemica_planner.errors import PlanFormatError, PlanMismatchError
from lemica_planner.integrations.block_stack import (
    Stack,
    find_stack,
    find_transformer,
    hidden_states,
    latents_shape,
    with_hidden_states,
)
from lemica_planner.integrations.errors import PipelineError
from lemica_planner.integrations.stack_cache import Kept, StackCache
from lemica_planner.integrations.step_clock import StepClock
from lemica_planner.operators import OPERATORS, depths, describe_wrong_weights
from lemica_planner.plan import CachePlan
from lemica_planner.plan_entry import Fill, PlanEntry

__all__ = ["InstalledCache", "PipelineError", "apply"]

_HOOK = "lemica_step_cache"
_SERVED = tuple(name for name, operator in OPERATORS.items() if operator.source == "residual")


class InstalledCache:
    """A step cache inside a pipeline; a context manager that takes it out again.

    Attributes
    ----------
    steps : tuple of int
        The planned steps: those that run the block stack.
    """

    def __init__(self, clock: StepClock[Kept], steps: tuple[int, ...], undo: ExitStack) -> None:
        self.steps = steps
        self._clock = clock
        self._undo = undo

    @property
    def computed_steps(self) -> tuple[int, ...]:
        """Steps of the latest generation that ran the block stack so far; empty before the first."""
        return tuple(sorted(self._clock.computed_steps))

    @property
    def nbytes(self) -> int:
        """Bytes of the residuals that are kept now."""
        return self._clock.nbytes

    def change(self, steps: Sequence[int]) -> None:
        """Go on by another path, which agrees with the steps that were taken.

        Needs ``may_change``, and the operator residual; else a skipped step may have nothing to reuse, and computes.
        """
        self.steps = tuple(steps)
        self._clock.skipped = _skipped(self.steps)

    def remove(self) -> None:
        """Give the pipeline back as it was, and drop all tensors; more than once is harmless."""
        self._undo.close()
        self._clock.forget()

    def __enter__(self) -> InstalledCache:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def apply(pipeline: Any, plan: CachePlan, budget: str | int, *, may_change: bool = False) -> InstalledCache:
    """Install the step cache of one budget in a pipeline.

    Every generation starts afresh when it sets the scheduler's timesteps, so one that an error ended leaves nothing
    behind. A branch that has no residual at a skipped step, because guidance began there, computes.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        A text-to-video pipeline with one diffusion transformer. It is changed until `InstalledCache.remove`.
    plan : CachePlan
        Its provenance is compared with the scheduler now and at every generation, and with the number of steps, the
        guidance scale and, where the latents tell it, the size at every generation. The weights are not compared.
    budget : str or int
        What `CachePlan.resolve` knows. ``full`` computes every step and compares nothing.
    may_change : bool
        Whether `InstalledCache.change` may be called: then every computed step is kept.

    Returns
    -------
    InstalledCache
        A handle with ``remove()``; also a context manager.

    Raises
    ------
    UnknownBudgetError
        If the plan holds no such budget.
    PlanMismatchError
        If the plan was made for something else, or for operators other than residuals and their forecasts; out of the
        pipeline's call, for what only a generation shows.
    PlanFormatError
        If weights in the plan do not fit their operator.
    PipelineError
        If the pipeline has no block stack that can be found, or a cache is installed already.
    """
    entry = plan.resolve(budget)
    fills = entry.reuse(plan.provenance.operator)
    _require_operators(entry, fills, may_change=may_change)
    transformer = find_transformer(pipeline)
    stack = find_stack(transformer)
    _refuse_rivals(transformer)
    compared = None if str(budget).strip() == "full" else plan
    looks_back = depths({fill.operator for fill in fills.values()})["residual"] > 1
    clock = StepClock[Kept](pipeline, compared, _skipped(entry.steps), keeps_all=may_change or looks_back)
    with ExitStack() as undo:
        clock.install(undo)
        _hook_up(undo, transformer, stack, StackCache(clock, stack, fills, partial(_is_guided, pipeline)))
        return InstalledCache(clock, entry.steps, undo.pop_all())


def _require_operators(entry: PlanEntry, fills: Mapping[int, Fill], *, may_change: bool) -> None:
    """Refuse what a hook on the blocks cannot make: outputs and noise are the whole model's."""
    other = sorted({fill.operator for fill in fills.values()} - set(_SERVED))
    if other:
        raise PlanMismatchError({"operator": (other[0], ", ".join(_SERVED))})
    wrong = next(filter(None, (describe_wrong_weights(entry, step, fill) for step, fill in fills.items())), None)
    if wrong:
        raise PlanFormatError(wrong)
    if may_change and any(fill.operator != "residual" for fill in fills.values()):
        raise PipelineError("another path needs other forecasts: may_change is for plans of the operator residual")


def _is_guided(pipeline: Any, context: str | None) -> bool | None:
    """Return whether the one call of a step holds both branches; None if the pipeline does not tell."""
    guided, scale = (getattr(pipeline, name, None) for name in ("do_classifier_free_guidance", "guidance_scale"))
    if isinstance(guided, bool):
        return guided
    # CogVideoX's scale is a number of its own; without such a context the scale may be one that the model is told
    return scale > 1 if context == "cond_uncond" and isinstance(scale, int | float) else None


def _skipped(steps: tuple[int, ...]) -> frozenset[int]:
    return frozenset(range(steps[-1])) - frozenset(steps)


def _refuse_rivals(transformer: nn.Module) -> None:
    registry = getattr(transformer, "_diffusers_hook", None)
    if registry is not None and registry.get_hook(_HOOK) is not None:
        raise PipelineError("a step cache is installed in this pipeline already; call remove() of its handle first")
    if getattr(transformer, "is_cache_enabled", False):
        raise PipelineError("another cache of diffusers is enabled; call pipeline.transformer.disable_cache() first")


def _hook_up(undo: ExitStack, transformer: nn.Module, stack: Stack, cache: StackCache) -> None:
    hooks: list[tuple[nn.Module, ModelHook]] = [(block, _BlockHook(cache)) for block in stack.blocks]
    if stack.end is not None:
        hooks.insert(0, (stack.end, _EndHook(cache)))
    for module, hook in [(transformer, _RootHook(cache)), *hooks]:
        registry = HookRegistry.check_if_exists_or_initialize(module)
        registry.register_hook(hook, _HOOK)
        undo.callback(registry.remove_hook, _HOOK, recurse=False)


class _ContextName(StateManager):  # type: ignore[misc]  # diffusers is half typed
    """The name of the current cache context, None without one; diffusers sets it on every StateManager."""

    def __init__(self) -> None:
        super().__init__(BaseState)
        self.name: str | None = None

    def set_context(self, context: Any) -> None:
        self.name = None if context is None else context.name


class _RootHook(ModelHook):  # type: ignore[misc]
    _is_stateful = True  # else contexts do not reach it

    def __init__(self, cache: StackCache) -> None:
        super().__init__()
        self._cache, self._context = cache, _ContextName()

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        self._cache.enter(self._context.name, latents_shape(args, kwargs))
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        self._cache.finish(output)
        return output

    def reset_state(self, module: nn.Module) -> nn.Module:
        return module  # a generation ends with its scheduler's steps, not with the pipeline's clean-up


class _BlockHook(ModelHook):  # type: ignore[misc]
    def __init__(self, cache: StackCache) -> None:
        super().__init__()
        self._cache = cache

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return self._cache.run_block(module, self.fn_ref.original_forward, args, kwargs)


class _EndHook(ModelHook):  # type: ignore[misc]
    def __init__(self, cache: StackCache) -> None:
        super().__init__()
        self._cache = cache

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return with_hidden_states(self._cache.leave_stack(module, hidden_states(module, args, kwargs)), args, kwargs)
