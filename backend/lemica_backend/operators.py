"""The ways to fill in a skipped step; they are the planner's, so that the hook for diffusers runs the same code."""

from lemica_planner.operators import (
    OPERATORS,
    SPLIT,
    Operator,
    Source,
    depths,
    describe_wrong_weights,
    extrapolation_weights,
)

__all__ = ["OPERATORS", "SPLIT", "Operator", "Source", "depths", "describe_wrong_weights", "extrapolation_weights"]
