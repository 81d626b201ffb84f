"""Which step, and which branch of it, a call of a diffusers transformer is for. Needs neither torch nor diffusers.

A generation begins where a pipeline sets its scheduler's timesteps, and a step ends where it calls ``scheduler.step``.
Both are watched on the one scheduler instance. Counting calls of the transformer would not do: guided pipelines make
one, two or more a step, and an error may end a generation between any two of them.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from lemica_planner.integrations.errors import PipelineError
from lemica_planner.integrations.pipeline_facts import generation_facts, scheduler_facts
from lemica_planner.plan import CachePlan
from lemica_planner.sampler_time import sampler_times
from lemica_planner.value_history import ValueHistory

__all__ = ["Branch", "StepClock", "Steps"]

_MAX_CALLS = 8  # of one branch in one step; guided pipelines make at most four
_Kept = TypeVar("_Kept")


class Branch(NamedTuple):
    """One of the calls that a pipeline makes in every step.

    Attributes
    ----------
    context : str or None
        Name of diffusers' cache context, such as ``"cond"``; None where the pipeline sets none.
    call : int
        How many calls of that name the step saw before.
    """

    context: str | None
    call: int


class Steps:
    """Tells a sampler's steps from calls of ``scheduler.step`` that take the same step again.

    Cosmos calls it twice a step: first for what each of guidance's branches predicts, then, with the sampler's index
    set back, for the step itself.
    """

    def __init__(self) -> None:
        self._index: int | None = None

    def is_new(self, scheduler: Any) -> bool:
        """Return whether the call that just ended took another step than the one before."""
        before, self._index = self._index, getattr(scheduler, "step_index", None)
        return self._index is None or self._index != before


@dataclass
class _Generation(Generic[_Kept]):
    """State of one generation; nothing of it outlives the next `set_timesteps`."""

    total: int
    history: ValueHistory
    steps: Steps = field(default_factory=Steps)
    step: int = 0
    is_checked: bool = False
    is_stepped_by_copies: bool = False  # since the last step
    calls: Counter[str | None] = field(default_factory=Counter)  # of this step
    kept: dict[Branch, _Kept] = field(default_factory=dict)
    computed: set[int] = field(default_factory=set)


class StepClock(Generic[_Kept]):
    """Counts the steps of a pipeline's generations, and refuses those that the plan was not made for.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        Its present scheduler is the one that is watched.
    plan : CachePlan or None
        What every generation is compared with; None compares nothing.
    skipped : frozenset of int
        The steps that the plan does not compute; may be set anew.
    keeps_all : bool
        Whether the step after each may turn out to be skipped.
    """

    def __init__(
        self, pipeline: Any, plan: CachePlan | None, skipped: frozenset[int], *, keeps_all: bool = False
    ) -> None:
        self._pipeline = pipeline
        self._scheduler = pipeline.scheduler
        self._plan = plan
        self.skipped = skipped
        self._keeps_all = keeps_all
        self._generation: _Generation[_Kept] | None = None

    def install(self, undo: ExitStack, **served: object) -> None:
        """Compare what is known now with the plan, and watch the scheduler until `undo` is closed."""
        self._require_match(**served, **scheduler_facts(self._scheduler))
        _watch(undo, self._scheduler, "set_timesteps", self._begin, lambda: None)
        _watch(undo, self._scheduler, "step", self._advance, self._note_copy)

    @property
    def computed_steps(self) -> set[int]:
        """Steps of the latest generation in which `note_computed` was called."""
        return set() if self._generation is None else set(self._generation.computed)

    @property
    def nbytes(self) -> int:
        """Bytes of the residuals that are kept now; 0 before the first generation."""
        return 0 if self._generation is None else self._generation.history.nbytes

    @property
    def step(self) -> int:
        """The step that is running."""
        return self._running.step

    @property
    def history(self) -> ValueHistory:
        """The residuals of the running generation's last computed steps."""
        return self._running.history

    def planned_before(self, count: int) -> tuple[int, ...]:
        """Return the last planned steps before the running one, at most `count`, the oldest first."""
        planned = [step for step in range(self._running.step) if step not in self.skipped]
        return tuple(planned[-count:])

    @property
    def is_skipped(self) -> bool:
        """Whether the plan skips this step."""
        return self._running.step in self.skipped

    @property
    def is_next_skipped(self) -> bool:
        """Whether the step after this one is skipped, or may be."""
        return self._keeps_all or self._running.step + 1 in self.skipped

    @property
    def kept(self) -> dict[Branch, _Kept]:
        """What the branches keep of the last planned step, at which it is emptied: who missed it computes."""
        return self._running.kept

    def note_computed(self) -> None:
        """Note that this step ran the block stack."""
        self._running.computed.add(self._running.step)

    def forget(self) -> None:
        """Drop what the branches keep."""
        if self._generation is not None:
            self._generation.kept.clear()
            self._generation.history.clear()

    def enter(self, context: str | None, latents: Sequence[int]) -> Branch:
        """Begin a call of the transformer on latents of that shape, and name its branch.

        Raises
        ------
        PlanMismatchError
            If this generation is not what the plan was made for.
        PipelineError
            If no generation is running, or its steps cannot be seen.
        """
        generation = self._running
        if self._plan is not None and not generation.is_checked:
            self._require_match(**generation_facts(self._pipeline, latents, self._plan.provenance))
        generation.is_checked = True
        branch = Branch(context, generation.calls[context])
        generation.calls[context] += 1
        self._check_steps(generation, branch)
        return branch

    @staticmethod
    def _check_steps(generation: _Generation[_Kept], branch: Branch) -> None:
        """Refuse pipelines whose steps pass unseen, and that would compute every step in silence."""
        if branch.call >= _MAX_CALLS or (branch.call > 0 and generation.is_stepped_by_copies):
            raise PipelineError(
                f"the transformer was called {branch.call + 1} times without a step of the pipeline's scheduler; at "
                f"most {_MAX_CALLS} calls, and no steps of copies of it, are expected: this pipeline cannot be cached"
            )

    def _begin(self) -> None:
        self._generation = None
        total = len(self._scheduler.timesteps)
        self._require_match(num_inference_steps=total, **scheduler_facts(self._scheduler))
        self._generation = _Generation(total, ValueHistory(sampler_times(self._scheduler)))

    def _advance(self) -> None:
        generation = self._generation
        if generation is None or not generation.steps.is_new(self._scheduler):
            return
        generation.step += 1
        generation.calls.clear()
        generation.is_stepped_by_copies = False
        if generation.step not in self.skipped:
            generation.kept.clear()

    def _note_copy(self) -> None:
        generation = self._generation
        if generation is not None and generation.calls:  # else it is one that a callback steps, after the step
            generation.is_stepped_by_copies = True

    def _require_match(self, **served: object) -> None:
        if self._plan is not None:
            self._plan.require_match(**served)

    @property
    def _running(self) -> _Generation[_Kept]:
        generation = self._generation
        if self._pipeline.scheduler is not self._scheduler:
            raise PipelineError("the pipeline got another scheduler after apply(); remove() the cache and apply again")
        if generation is None or generation.step >= generation.total:
            where = "before set_timesteps" if generation is None else f"after the last of {generation.total} steps"
            raise PipelineError(f"the transformer was called {where}; call scheduler.set_timesteps, or remove() first")
        return generation


def _watch(
    undo: ExitStack, scheduler: Any, name: str, then: Callable[[], None], then_of_copies: Callable[[], None]
) -> None:
    """Call `then` after every call of a method of this one scheduler."""
    before = vars(scheduler).get(name)
    if isinstance(before, _Watched) and not before.is_copy:
        raise PipelineError("another pipeline's step cache uses this scheduler; remove() that, or copy the scheduler")
    setattr(scheduler, name, _Watched(scheduler, name, then, then_of_copies))
    undo.callback(*((delattr, scheduler, name) if before is None else (setattr, scheduler, name, before)))


class _Watched:
    """A method of one scheduler that tells when it has returned."""

    def __init__(
        self,
        scheduler: Any,
        name: str,
        then: Callable[[], None],
        then_of_copies: Callable[[], None],
        *,
        is_copy: bool = False,
    ) -> None:
        method = getattr(scheduler, name)
        functools.update_wrapper(self, method)  # pipelines read the signature; first, as it copies attributes
        self._scheduler, self._name, self._method = scheduler, name, method
        self._then, self._then_of_copies = then, then_of_copies
        self.is_copy = is_copy

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self._method(*args, **kwargs)
        self._then()
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Give a copied scheduler its own method, so that the copy steps itself and not the original."""
        copied = memo[id(self._scheduler)]
        return _Watched(copied, self._name, self._then_of_copies, self._then_of_copies, is_copy=True)
