"""What the engine asks of whoever runs a model: one protocol, plain picklable values, no torch.

`lemica_backend.local_worker` runs the model in this process, `lemica_backend.process_worker` in one of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lemica_backend.model_info import ModelInfo
from lemica_backend.planned import PlannedRequest
from lemica_backend.profile import Profile


class WorkerLostError(Exception):
    """The worker is gone with all that it held; the message says how it ended."""


class Facts(NamedTuple):
    """What the engine must know of a loaded model.

    Attributes
    ----------
    info : ModelInfo
    profile : Profile
        What was measured; the engine keeps it up to date.
    switches : frozenset of int
        The steps at which other weights take over, for the plan's number of steps.
    operators : frozenset of str or None
        Those that the worker can fill skipped steps in with; None for all that there are.
    """

    info: ModelInfo
    profile: Profile
    switches: frozenset[int] = frozenset()
    operators: frozenset[str] | None = None


class Started(NamedTuple):
    """A request's text is encoded and its noise drawn.

    Attributes
    ----------
    rows : int
        Its guidance branches.
    seconds : float
    """

    rows: int
    seconds: float


class Stepped(NamedTuple):
    """What became of some steps of some requests; each took them, or is among the failures.

    Attributes
    ----------
    seconds : float
        Until the device had done it, whatever was tried again included.
    cached_bytes : mapping of int to int
        By number, what the step caches hold now.
    failures : mapping of int to Exception
        By number, why a request cannot go on.
    taken : int
        Steps that all but the failures took.
    is_split : bool
        Whether the requests had to be tried in parts, so that the time says nothing about what they cost.
    too_many_rows : int or None
        The fewest rows for which one forward did not have enough memory; None if all had.
    fallbacks : tuple of (str, int)
        For each reason, rows that the block engine left to the eager one.
    """

    seconds: float
    cached_bytes: Mapping[int, int]
    failures: Mapping[int, Exception]
    taken: int = 1
    is_split: bool = False
    too_many_rows: int | None = None
    fallbacks: tuple[tuple[str, int], ...] = ()


class Decoded(NamedTuple):
    """A finished video, and how its steps went.

    Attributes
    ----------
    frames : ndarray of uint8, shape (frames, height, width, 3)
    latents : ndarray of float32
        The final latents, before decoding.
    step_ms : tuple of (float, bool)
        For each step, its wall time in ms, and whether it was computed.
    forecast_miss : float or None
        How far the forecasts were off, over what is usual; None where nothing was checked.
    seconds : float
        That decoding took.
    """

    frames: NDArray[np.uint8]
    latents: NDArray[np.float32]
    step_ms: tuple[tuple[float, bool], ...]
    forecast_miss: float | None
    seconds: float


class Worker(Protocol):
    """Holds started requests by their numbers. One thread calls it.

    Every call but `drop` may raise `WorkerLostError`; what else it raises is the fault of the request that it is about.
    """

    facts: Facts

    @property
    def is_lost(self) -> bool:
        """Whether it has ended by itself."""
        ...

    def start(self, number: int, planned: PlannedRequest) -> Started:
        """Encode the text and draw the noise."""
        ...

    def step(self, numbers: Sequence[int], most: int = 1) -> Stepped:
        """Take one denoising step of these requests after the other, at least one and at most so many.

        After one in which a request failed, or that had to be tried in parts, none is taken.
        """
        ...

    def replan(self, number: int, planned: PlannedRequest) -> None:
        """Let a request go on as this one says, which agrees with the steps that it has taken."""
        ...

    def decode(self, number: int) -> Decoded:
        """Decode the latents of a request that has taken all its steps."""
        ...

    def preview(self, number: int) -> NDArray[np.uint8] | None:
        """Decode the latents as they are; return the middle frame, (height, width, 3), at most 128 wide.

        None where a model cannot decode before its end.
        """
        ...

    def drop(self, number: int) -> None:
        """Forget a request and free what it holds; never raises, and is harmless if there is none."""
        ...

    def close(self) -> None:
        """End, and free everything."""
        ...


class WorkerSource(Protocol):
    """Makes workers of one device, one after another. `kill` may be called from any thread."""

    device: str

    def open(self, on_end: Callable[[], None], *, measures: bool) -> Worker:
        """Load the model; blocks until it can serve.

        Parameters
        ----------
        on_end : callable
            Is called, from any thread, when the worker has ended by itself.
        measures : bool
            Whether to measure what work costs; a worker that replaces another one need not.

        Raises
        ------
        ModelLoadError
            If the model cannot be loaded.
        WorkerLostError
            If the worker ended while it was loading.
        """
        ...

    def kill(self) -> None:
        """End the current worker at once, if it can be; whoever waits for it gets `WorkerLostError`."""
        ...

    def close(self) -> None:
        """Let go of what is kept for a next worker; there will be none. From the thread that opened the last one."""
        ...
