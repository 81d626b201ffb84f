"""What is known of a loaded model before it serves: what its work costs, and how large its cached values are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from lemica_backend.cost_model import CostModel
from lemica_backend.operators import depths
from lemica_backend.planned import PlannedRequest

OF_BRANCHES = ("residual",)  # sources of which each guidance branch keeps its own


class BranchRows(NamedTuple):
    """How many guidance branches a request has: with a scale below 1, of exactly 1, and above it.

    Classifier-free guidance is off at 1; some pipelines guide below it, and some take the scale as an input.
    """

    below: int = 1
    at: int = 1
    above: int = 2

    def of(self, guidance_scale: float) -> int:
        """Return the rows of a request with this guidance scale."""
        return self.at if guidance_scale == 1 else self.above if guidance_scale > 1 else self.below


@dataclass(frozen=True)
class Profile:
    """What the scheduler knows of a loaded model.

    Attributes
    ----------
    cost : CostModel
        Kept up to date by the engine.
    value_bytes : mapping of str to int
        By source, what one computed step leaves in the step cache: of one guidance branch where it belongs to a branch.
    branch_rows : BranchRows
        Rows of a request by its guidance scale.
    usual_rows : int
        Branches of a request with the default guidance scale.
    """

    cost: CostModel
    value_bytes: Mapping[str, int] = field(default_factory=dict)
    branch_rows: BranchRows = field(default_factory=BranchRows)
    usual_rows: int = 2

    def rows(self, planned: PlannedRequest) -> int:
        """Return the rows of a request that is not started yet."""
        return self.branch_rows.of(planned.guidance_scale)

    def cache_bytes(self, planned: PlannedRequest) -> int:
        """Return what a request's step cache holds at most, on any of its courses; 0 if sizes were not measured."""
        most = planned.courses[-1].budget
        return sum(
            min(depth, most) * self.value_bytes.get(source, 0) * (self.rows(planned) if source in OF_BRANCHES else 1)
            for source, depth in depths(planned.operators).items()
        )
