"""Run a cache plan inside a diffusers text-to-video pipeline, in one line and without a server.

>>> from lemica_planner.integrations.diffusers import apply  # doctest: +SKIP
>>> with apply(pipeline, plan, "fast"):  # doctest: +SKIP
...     video = pipeline("a red circle moving right").frames

At a reused step the blocks do not run: the first module after them gets what entered them plus the residual of the
last computed step (arXiv 2511.00090, section 3.1). Steps are counted by watching the pipeline's scheduler, so callers
pass no callbacks. This is the only module of the planner that imports torch and diffusers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import BaseState, StateManager
from torch import Tensor, nn

from lemica_planner.integrations.errors import PipelineError
from lemica_planner.integrations.step_clock import Branch, StepClock
from lemica_planner.plan import CachePlan

__all__ = ["InstalledCache", "PipelineError", "apply"]

_HOOK = "lemica_step_cache"


class InstalledCache:
    """A step cache inside a pipeline; a context manager that takes it out again.

    Attributes
    ----------
    steps : tuple of int
        The planned steps: those that run the block stack.
    """

    def __init__(self, clock: StepClock[_Kept], steps: tuple[int, ...], undo: ExitStack) -> None:
        self.steps = steps
        self._clock = clock
        self._undo = undo

    @property
    def computed_steps(self) -> tuple[int, ...]:
        """Steps of the latest generation that ran the block stack so far; empty before the first."""
        return tuple(sorted(self._clock.computed_steps))

    def remove(self) -> None:
        """Give the pipeline back as it was, and drop all tensors; more than once is harmless."""
        self._undo.close()
        self._clock.forget()

    def __enter__(self) -> InstalledCache:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def apply(pipeline: Any, plan: CachePlan, budget: str | int) -> InstalledCache:
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

    Returns
    -------
    InstalledCache
        A handle with ``remove()``; also a context manager.

    Raises
    ------
    UnknownBudgetError
        If the plan holds no such budget.
    PlanMismatchError
        If the plan was made for something else; out of the pipeline's call, for what only a generation shows.
    PipelineError
        If the pipeline has no block stack that can be found, or a cache is installed already.
    """
    entry = plan.resolve(budget)
    transformer = _find_transformer(pipeline)
    stack = _find_stack(transformer)
    _refuse_rivals(transformer)
    compared = None if str(budget).strip() == "full" else plan
    clock = StepClock[_Kept](pipeline, compared, frozenset(range(entry.steps[-1])) - frozenset(entry.steps))
    with ExitStack() as undo:
        clock.install(undo, operator="residual")
        _hook_up(undo, transformer, stack, _StackCache(clock))
        return InstalledCache(clock, entry.steps, undo.pop_all())


class _Stack(NamedTuple):
    blocks: tuple[nn.Module, ...]
    end: nn.Module  # the first module after them


def _find_transformer(pipeline: Any) -> nn.Module:
    transformer, scheduler = getattr(pipeline, "transformer", None), getattr(pipeline, "scheduler", None)
    name = type(pipeline).__name__
    if not isinstance(transformer, nn.Module) or not hasattr(scheduler, "set_timesteps"):
        raise PipelineError(
            f"{name} cannot be cached: looked for a `transformer` that is a torch module and a `scheduler` with "
            f"set_timesteps; got {type(transformer).__name__} and {type(scheduler).__name__}; "
            "give a pipeline with both, such as LattePipeline or WanPipeline"
        )
    if getattr(pipeline, "transformer_2", None) is not None:
        raise PipelineError(f"{name} has a second transformer, transformer_2; a plan is for one: use a model with one")
    return transformer


def _find_stack(transformer: nn.Module) -> _Stack:
    """Find the block lists, and the module that is declared, and so in diffusers runs, right after them."""
    children = dict(transformer.named_children())
    lists = [name for name, child in children.items() if _is_block_list(name, child)]
    later = list(children)[list(children).index(lists[-1]) + 1 :] if lists else []
    ends = [children[name] for name in later if not isinstance(children[name], nn.ModuleList)]
    if not ends:
        raise PipelineError(
            f"{type(transformer).__name__} has no block stack: looked for torch.nn.ModuleList children whose names end "
            f"in 'blocks' (found {lists or 'none'}), and for the first module declared after them, such as norm_out "
            f"(found none); its children are {list(children)}; use a diffusers video transformer"
        )
    return _Stack(tuple(block for name in lists for block in children[name].children()), ends[0])


def _is_block_list(name: str, child: nn.Module) -> bool:
    # blocks over text alone, as in Kandinsky 5, come before the stack
    return isinstance(child, nn.ModuleList) and len(child) > 0 and name.endswith("blocks") and name[:4] != "text"


def _refuse_rivals(transformer: nn.Module) -> None:
    registry = getattr(transformer, "_diffusers_hook", None)
    if registry is not None and registry.get_hook(_HOOK) is not None:
        raise PipelineError("a step cache is installed in this pipeline already; call remove() of its handle first")
    if getattr(transformer, "is_cache_enabled", False):
        raise PipelineError("another cache of diffusers is enabled; call pipeline.transformer.disable_cache() first")


def _hook_up(undo: ExitStack, transformer: nn.Module, stack: _Stack, cache: _StackCache) -> None:
    hooks = [(transformer, _RootHook(cache)), (stack.end, _EndHook(cache))]
    for module, hook in hooks + [(block, _BlockHook(cache)) for block in stack.blocks]:
        registry = HookRegistry.check_if_exists_or_initialize(module)
        registry.register_hook(hook, _HOOK)
        undo.callback(registry.remove_hook, _HOOK, recurse=False)


@dataclass
class _Kept:
    """What a computed call leaves for the skipped steps after it."""

    outputs: dict[nn.Module, Any] = field(default_factory=dict)  # by block: blanks in the shape of its output
    residual: Tensor | None = None  # in the shape and dtype of what enters the stack


@dataclass
class _Call:
    """One call of the transformer."""

    branch: Branch
    start: Tensor | None = None  # what entered the stack
    keeps: _Kept | None = None  # filled in by a computed call before a skipped step
    reuses: _Kept | None = None
    end: Tensor | None = None  # what left the stack


class _StackCache:
    """Runs the block stack, or does its work from the residual of an earlier step."""

    def __init__(self, clock: StepClock[_Kept]) -> None:
        self._clock = clock
        self._call: _Call | None = None
        self._is_proved = False  # that blanks reach nothing but the end of the stack

    def enter(self, context: str | None, latents: Tensor) -> None:
        """Begin a call of the transformer; one that an error ended is forgotten."""
        self._call = None
        self._call = _Call(self._clock.enter(context, latents.shape))

    def run_block(self, block: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run one block, or return blanks in its place."""
        call = self._call
        if call is None:  # someone runs a block outside the transformer
            return forward(*args, **kwargs)
        if call.start is None:
            self._enter_stack(call, _hidden(block, args, kwargs))
        if call.reuses is not None:
            return call.reuses.outputs[block]
        output = forward(*args, **kwargs)
        if call.keeps is not None:
            call.keeps.outputs[block] = _blank(output)
        return output

    def _enter_stack(self, call: _Call, hidden: Tensor) -> None:
        kept = self._clock.kept.get(call.branch)
        if self._clock.is_skipped and kept and kept.residual is not None and kept.residual.shape == hidden.shape:
            call.reuses = kept
        else:
            self._clock.note_computed()
            call.keeps = _Kept() if self._clock.is_next_skipped else None
        call.start = hidden if call.keeps is None else hidden.clone()  # blocks may write into their input

    def leave_stack(self, end: nn.Module, hidden: Tensor) -> Tensor:
        """Keep the residual of a computed call, or put the sum in the place of blanks."""
        call = self._call
        if call is None:
            return hidden
        if call.start is None or call.start.shape != hidden.shape:
            raise _bad_end(end, hidden, call.start)
        if call.keeps is not None:
            # Wan casts to float32 behind its last block; in the stack's own dtype nothing is lost
            call.keeps.residual = hidden.to(call.start.dtype) - call.start
            self._clock.kept[call.branch] = call.keeps
        if call.reuses is not None and call.reuses.residual is not None:
            hidden = (call.start + call.reuses.residual).to(hidden.dtype)
        call.end = hidden
        return hidden

    def finish(self, output: Any) -> None:
        """End a call, and see once that its output holds nothing of the blanks."""
        call, self._call = self._call, None
        if call is None or call.end is None:
            raise PipelineError("the end of the block stack did not run; this transformer cannot be cached")
        if call.reuses is None or self._is_proved or not _is_finite(call.end):
            return
        if not _is_finite(output):
            raise PipelineError(
                "the transformer uses more of its blocks' output than what enters the module after them (a second "
                "stream, such as audio); only transformers with one stream can be cached"
            )
        self._is_proved = True


class _ContextName(StateManager):  # type: ignore[misc]  # diffusers is half typed
    """The name of the current cache context, None without one; diffusers sets it on every StateManager."""

    def __init__(self) -> None:
        super().__init__(BaseState)
        self.name: str | None = None

    def set_context(self, context: Any) -> None:
        self.name = None if context is None else context.name


class _RootHook(ModelHook):  # type: ignore[misc]
    _is_stateful = True  # else contexts do not reach it

    def __init__(self, cache: _StackCache) -> None:
        super().__init__()
        self._cache, self._context = cache, _ContextName()

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        self._cache.enter(self._context.name, _hidden(module, args, kwargs))
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        self._cache.finish(output)
        return output

    def reset_state(self, module: nn.Module) -> nn.Module:
        return module  # a generation ends with its scheduler's steps, not with the pipeline's clean-up


class _BlockHook(ModelHook):  # type: ignore[misc]
    def __init__(self, cache: _StackCache) -> None:
        super().__init__()
        self._cache = cache

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return self._cache.run_block(module, self.fn_ref.original_forward, args, kwargs)


class _EndHook(ModelHook):  # type: ignore[misc]
    def __init__(self, cache: _StackCache) -> None:
        super().__init__()
        self._cache = cache

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        hidden = self._cache.leave_stack(module, _hidden(module, args, kwargs))
        return (
            (args, kwargs | {"hidden_states": hidden}) if "hidden_states" in kwargs else ((hidden, *args[1:]), kwargs)
        )


def _hidden(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    found = kwargs.get("hidden_states", args[0] if args else None)
    if not isinstance(found, Tensor):
        raise PipelineError(
            f"{type(module).__name__} got no hidden states: looked for a tensor in the argument hidden_states, or the "
            f"first one; got {type(found).__name__}; this transformer cannot be cached"
        )
    return found


def _bad_end(end: nn.Module, hidden: Tensor, start: Tensor | None) -> PipelineError:
    entered = "no block ran before it" if start is None else f"{tuple(start.shape)} entered the first block"
    return PipelineError(
        f"{type(end).__name__}, declared after the block lists, got hidden states of shape {tuple(hidden.shape)}, but "
        f"{entered}; the block stack must end there and keep the shape: this transformer cannot be cached"
    )


def _blank(output: Any) -> Any:
    """Return NaN in the shape of a block's output, in the memory of one number.

    Whatever a transformer does between its blocks works on it, and where it leaks to is found out by `_is_finite`.
    """
    if isinstance(output, Tensor):
        return output.new_full((), math.nan if output.is_floating_point() else 0).expand(output.shape)
    if isinstance(output, dict):
        return {key: _blank(part) for key, part in output.items()}
    return tuple(_blank(part) for part in output) if isinstance(output, tuple | list) else output


def _is_finite(output: Any) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in _tensors(output))


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict | tuple | list):
        for part in output.values() if isinstance(output, dict) else output:
            yield from _tensors(part)
