"""Runs a transformer's block stack, or does its work from what computed steps left. Imports torch.

What a skipped step takes is made by the server's own code, `lemica_planner.value_history`, of the residuals of this
pipeline's calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lemica_planner.integrations.block_stack import Stack, hidden_states
from lemica_planner.integrations.errors import PipelineError
from lemica_planner.integrations.step_clock import Branch, StepClock
from lemica_planner.operators import OPERATORS, SPLIT, depths
from lemica_planner.plan_entry import Fill

__all__ = ["Kept", "StackCache"]

_PLAIN = Fill("residual")
_BATCHED = (None, "cond_uncond")  # cache contexts of calls that may hold both branches, the unconditional one first


@dataclass
class Kept:
    """What a computed call leaves for the skipped steps after it."""

    outputs: dict[nn.Module, Any] = field(default_factory=dict)  # by block: blanks in the shape of its output
    shape: torch.Size | None = None  # of what entered the stack; the history has the residual


@dataclass
class _Call:
    """One call of the transformer."""

    branch: Branch
    is_list: bool  # of videos or images, as in Z-Image, which has the conditional half first
    start: Tensor | None = None  # what entered the stack
    keeps: Kept | None = None  # filled in by a computed call before a skipped step
    reuses: Kept | None = None
    last: Any = None  # what the last block returned
    end: Tensor | None = None  # what left the stack


class StackCache:
    """Runs the block stack, or does its work from the residuals of earlier steps.

    Parameters
    ----------
    clock : StepClock
    stack : Stack
    fills : mapping of int to Fill
        What skipped steps are made of; those that it does not name reuse the last residual.
    is_guided : callable
        By the cache context, whether the one call of a step holds both branches; None if the pipeline does not tell.
    """

    def __init__(
        self,
        clock: StepClock[Kept],
        stack: Stack,
        fills: Mapping[int, Fill],
        is_guided: Callable[[str | None], bool | None],
    ) -> None:
        self._clock, self._fills, self._is_guided = clock, fills, is_guided
        self._operators = {fill.operator for fill in fills.values()} or {_PLAIN.operator}
        self._depth = depths(self._operators)["residual"]
        self._last = stack.last
        self._ends_in_block = stack.end is None  # the last block ends the stack, and not the module after it
        self._call: _Call | None = None
        self._is_proved = False  # that blanks reach nothing but the end of the stack

    def enter(self, context: str | None, latents: Sequence[int]) -> None:
        """Begin a call of the transformer; one that an error ended is forgotten."""
        self._call = None
        self._call = _Call(self._clock.enter(context, latents), is_list=not latents)

    def run_block(self, block: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run one block, or return blanks in its place."""
        call = self._call
        if call is None:  # someone runs a block outside the transformer
            return forward(*args, **kwargs)
        if call.start is None:
            self._enter_stack(call, hidden_states(block, args, kwargs))
        output = forward(*args, **kwargs) if call.reuses is None else call.reuses.outputs[block]
        if call.keeps is not None:
            call.keeps.outputs[block] = _blank(output)
        return self._leave_last(call, output) if block is self._last else output

    def _leave_last(self, call: _Call, output: Any) -> Any:
        """Leave the stack, if it ends here."""
        if not self._ends_in_block:
            call.last = output  # whether it does is seen behind it
            return output
        assert self._last is not None
        if call.start is None or not _is_alike(output, call.start):
            raise _bad_end(self._last, "the last block", output, call.start)
        return self._leave(call, output)

    def _enter_stack(self, call: _Call, hidden: Tensor) -> None:
        kept = self._clock.kept.get(call.branch)
        if self._clock.is_skipped and kept and kept.shape == hidden.shape and self._has_values(call.branch, hidden):
            call.reuses = kept
        else:
            self._clock.note_computed()
            call.keeps = Kept() if self._clock.is_next_skipped else None
        call.start = hidden if call.keeps is None else hidden.clone()  # blocks may write into their input

    def leave_stack(self, end: nn.Module, hidden: Tensor) -> Tensor:
        """Leave the stack before the module after it, or learn that the last block is its end."""
        call = self._call
        if call is None or self._ends_in_block:
            return hidden
        if call.start is not None and call.start.shape == hidden.shape:
            return self._leave(call, hidden)
        if call.start is None or call.reuses is not None or not _is_alike(call.last, call.start):
            raise _bad_end(end, "declared after the block lists", hidden, call.start)
        self._ends_in_block = True
        self._leave(call, call.last)
        return hidden

    def _leave(self, call: _Call, hidden: Tensor) -> Tensor:
        """Keep the residual of a computed call, or put the sum in the place of blanks."""
        assert call.start is not None
        call.last = None
        if call.keeps is not None:
            # Wan casts to float32 behind its last block; in the stack's own dtype nothing is lost
            self._keep(call.branch, hidden.to(call.start.dtype) - call.start)
            call.keeps.shape = hidden.shape
            self._clock.kept[call.branch] = call.keeps
        if call.reuses is not None:
            hidden = (call.start + self._predict(call.branch, hidden)).to(hidden.dtype)
        call.end = hidden
        return hidden

    def _keep(self, branch: Branch, residual: Tensor) -> None:
        keys = self._keys(branch, residual)
        for key, value in zip(keys, residual.chunk(len(keys)), strict=True):
            self._clock.history.keep(self._clock.step, key, value, self._depth)

    def _predict(self, branch: Branch, hidden: Tensor) -> Tensor:
        step = self._clock.step
        fill = self._fills.get(step, _PLAIN)
        parts = [self._clock.history.predict(step, key, fill) for key in self._keys(branch, hidden)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _has_values(self, branch: Branch, hidden: Tensor) -> bool:
        """Whether the history holds what the forecast looks at: guidance may have begun since."""
        fill = self._fills.get(self._clock.step, _PLAIN)
        operator = OPERATORS[fill.operator]
        count = len(fill.weights) // max(1, len(operator.fits)) or operator.order + 1
        wanted = self._clock.planned_before(count)
        needed = {*self._keys(branch, hidden)} | ({"cond"} if fill.operator == SPLIT else set())
        known = [self._clock.history.steps(key)[-len(wanted) :] for key in needed]
        if count == 1:  # a branch that began at a skipped step, and computed there, is reused from there
            return all(steps and steps[-1] >= wanted[-1] for steps in known)
        return all(steps == wanted for steps in known)

    def _keys(self, branch: Branch, hidden: Tensor) -> tuple[Any, ...]:
        """Return what the history calls the parts of a call's batch: the call itself, or guidance's branches."""
        if SPLIT not in self._operators:
            return (branch,)
        if branch.call == 0 and branch.context in ("cond", "uncond"):
            return (branch.context,)
        if branch.call == 0 and branch.context in _BATCHED:
            is_guided = self._is_guided(branch.context)
            if is_guided is False:
                return ("cond",)
            is_list = self._call is not None and self._call.is_list
            if is_guided and not is_list and hidden.shape[0] % 2 == 0:
                return ("uncond", "cond")
        raise PipelineError(
            f"{SPLIT} needs to know which calls of the transformer are conditional; this pipeline makes call "
            f"{branch.call + 1} of a step in the cache context {branch.context!r} on a batch of {hidden.shape[0]}: "
            "calibrate with --operators residual-fitted for it"
        )

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


def _is_alike(output: Any, start: Tensor) -> bool:
    return isinstance(output, Tensor) and output.shape == start.shape


def _bad_end(end: nn.Module, where: str, hidden: Any, start: Tensor | None) -> PipelineError:
    entered = "no block ran before it" if start is None else f"{tuple(start.shape)} entered the first block"
    got = f"of shape {tuple(hidden.shape)}" if isinstance(hidden, Tensor) else f"in a {type(hidden).__name__}"
    return PipelineError(
        f"{type(end).__name__}, {where}, has hidden states {got}, but {entered}; the block stack must end there and "
        "keep the shape: this transformer cannot be cached"
    )
