"""Errors of the planner.

::

    PlannerError
    ├── InvalidGraphError        an array or file that is no error graph
    ├── InfeasibleBudgetError    no path of the graph has that many computed steps
    ├── PlanFormatError          a plan, or a part of one, that breaks the format
    ├── UnknownBudgetError       the plan holds no such budget
    ├── PlanMismatchError        the plan was made for something else than what is served
    ├── ConfigError              a config.pbtxt that cannot be read, or holds no plan
    └── CalibrationError         a calibration that cannot start or go on
        ├── JournalError             a journal of another run, or a damaged one
        ├── PromptSetError           prompts that cannot be read or drawn
        └── ReplayerNotFoundError    no such replayer is installed

Every message says what was got, what is allowed and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class PlannerError(Exception):
    """Base of every error that the planner raises for its callers' input."""


class InvalidGraphError(PlannerError, ValueError):
    """The weights, or a file, do not describe an error graph."""


class PlanFormatError(PlannerError, ValueError):
    """A plan, or a part of one, breaks the format."""


class ConfigError(PlannerError, ValueError):
    """A config.pbtxt cannot be read, or holds no plan."""


class CalibrationError(PlannerError):
    """A calibration cannot start or go on."""


class JournalError(CalibrationError):
    """The journal belongs to another run, or is damaged."""


class PromptSetError(CalibrationError, ValueError):
    """A source of prompts cannot be read, or holds too few."""


class ReplayerNotFoundError(CalibrationError):
    """No replayer of that name is installed."""


class InfeasibleBudgetError(PlannerError, ValueError):
    """No path of the graph has exactly `budget` computed steps.

    Attributes
    ----------
    budget : int
        The budget that was asked for.
    feasible : tuple of int
        Every budget that has a path, ascending; never empty.
    """

    def __init__(self, budget: int, feasible: Sequence[int]) -> None:
        self.budget = budget
        self.feasible = tuple(feasible)
        near = sorted(sorted(feasible, key=lambda other: abs(other - budget))[:2])
        super().__init__(
            f"no path has exactly {budget} computed steps: the smallest feasible budget is {self.smallest}, "
            f"the largest {self.feasible[-1]}; nearest to {budget}: {', '.join(map(str, near))}"
        )

    @property
    def smallest(self) -> int:
        """The smallest feasible budget."""
        return self.feasible[0]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the arguments, not by the message."""
        return type(self), (self.budget, self.feasible)


class UnknownBudgetError(PlannerError, LookupError):
    """The plan holds no such budget."""


class PlanMismatchError(PlannerError, ValueError):
    """The plan was made for something else than what is served.

    Attributes
    ----------
    differences : dict of str to (planned, served)
        The fields that differ; keys inside the scheduler's configuration read ``scheduler_config.KEY``.
    """

    def __init__(self, differences: Mapping[str, tuple[Any, Any]]) -> None:
        self.differences = dict(differences)
        listed = "; ".join(f"{key}: plan {old!r}, served {new!r}" for key, (old, new) in differences.items())
        super().__init__(
            f"the plan was not made for what is served ({listed}); calibrate for it, or serve what it is for"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the arguments, not by the message."""
        return type(self), (self.differences,)
