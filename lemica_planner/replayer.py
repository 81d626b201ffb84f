"""What calibration asks of whoever runs a model: the one contract between the planner and an engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from lemica_planner.plan_entry import Fill, PlanEntry
from lemica_planner.provenance import Provenance, Sample
from lemica_planner.samplers import Sampler, Way

__all__ = [
    "KnownNames",
    "OperatorFacts",
    "ReplaySession",
    "Replayer",
    "SamplingReplayer",
    "Segment",
    "Yardstick",
    "knows",
    "names_known_to",
]

_Opener = TypeVar("_Opener", bound=Callable[..., Any])


class Segment(NamedTuple):
    """One stretch of skipped steps: an edge of the error graph, with all that its error depends on.

    Attributes
    ----------
    start, end : int
        The computed steps at its ends; the steps between them are skipped.
    operator : str
        What fills them in.
    history : tuple of int
        The computed steps before `start`, ascending, as many as the operator looks back on; empty at the first step,
        and for operators that see the last computed step only.
    weights : tuple of tuple of float
        For each skipped step the weights of the history's values and the start's, in this order, one part of a value
        after the other; empty for operators that are not fitted.
    """

    start: int
    end: int
    operator: str = "residual"
    history: tuple[int, ...] = ()
    weights: tuple[tuple[float, ...], ...] = ()

    @property
    def fills(self) -> dict[int, Fill]:
        """What every skipped step is made of."""
        steps = range(self.start + 1, self.end)
        weights = self.weights or ((),) * len(steps)
        return {step: Fill(self.operator, each) for step, each in zip(steps, weights, strict=True)}


class OperatorFacts(NamedTuple):
    """What planning must know of a reuse operator.

    Attributes
    ----------
    looks_back : int
        Computed steps before the last one that it looks at.
    fits : tuple of str
        If it takes its weights from the plan: the parts of a value that have weights of their own, keys of
        `ReplaySession.grams`.
    """

    looks_back: int
    fits: tuple[str, ...] = ()


class ReplaySession(Protocol):
    """One sample's stored trajectory, ready to be replayed.

    Errors are mean absolute differences of latents.
    """

    def errors(self, segments: Sequence[Segment]) -> NDArray[np.float64]:
        """Return what each segment alone changes in the end, by the replayer's metric, shape (len(segments),).

        The steps up to a segment's start are the full trajectory's, and every step from its end on is computed. The
        segments of one call share their end, so that their steps from there on can run as rows of one batch.
        """
        ...

    def drifts(self, segments: Sequence[Segment]) -> NDArray[np.float64]:
        """Return what each segment changes in the latents that enter its end step; no step is computed."""
        ...

    def outcomes(self, paths: Sequence[PlanEntry]) -> NDArray[np.float64]:
        """Return what each whole path changes in the end, by the replayer's metric; an entry names its operators."""
        ...

    def grams(self) -> Mapping[str, NDArray[np.float64]]:
        """Return by part of a value the products of every two steps on the trajectory, shape (T, T).

        Entry (a, b) is the mean over the part's elements of step a's times step b's.
        """
        ...

    def close(self) -> None:
        """Drop the stored trajectory."""
        ...


class Replayer(Protocol):
    """Runs trajectories with the reuse operators that will be served."""

    def provenance(self) -> Provenance:
        """Return what the errors will be valid for."""
        ...

    def operators(self) -> Mapping[str, OperatorFacts]:
        """Return the reuse operators by name."""
        ...

    def switches(self) -> Collection[int]:
        """Return the steps at which other weights take over: always computed, and nothing is reused across them."""
        ...

    def open(self, sample: Sample) -> ReplaySession:
        """Run the full trajectory of `sample` once, T forwards, and return it for replays."""
        ...


class Yardstick(Protocol):
    """One sample's reference videos, ready to be compared with."""

    def measure(self, way: Way) -> Mapping[str, Mapping[str, float]]:
        """Make the sample's video that way, and return by reference, and by measure, how far it is from there."""
        ...


class SamplingReplayer(Replayer, Protocol):
    """A replayer that can also change the sampler; what `lemica_planner.step_search` asks for."""

    def resampled(self, sampler: Sampler, num_steps: int) -> Replayer:
        """Return a replayer of the same model with another sampler and number of steps; its provenance says so."""
        ...

    def leaps(self, sampler: Sampler, num_steps: int) -> Replayer:
        """Return a replayer whose one operator fills skipped steps by one bigger step of the sampler itself."""
        ...

    def timesteps(self, sampler: Sampler, num_steps: int) -> tuple[float, ...]:
        """Return the sampler's timesteps, falling."""
        ...

    def measures(self) -> Sequence[str]:
        """Return the names of what a yardstick measures."""
        ...

    def yardstick(self, sample: Sample, references: Mapping[str, Way]) -> Yardstick:
        """Make the sample's reference videos."""
        ...


class KnownNames(NamedTuple):
    """What a function that opens a replayer can be asked for, whatever the model is.

    Attributes
    ----------
    operators, metrics : tuple of str
    """

    operators: tuple[str, ...]
    metrics: tuple[str, ...]


def knows(names: KnownNames) -> Callable[[_Opener], _Opener]:
    """Mark a function that opens a replayer, so that other names are refused before a model is loaded."""

    def mark(opener: _Opener) -> _Opener:
        vars(opener)["known_names"] = names
        return opener

    return mark


def names_known_to(opener: Callable[..., Any]) -> KnownNames | None:
    """Return what `knows` marked, None if the function is not marked."""
    found = getattr(opener, "known_names", None)
    return found if isinstance(found, KnownNames) else None
