"""Errors that only the integrations raise."""

from __future__ import annotations

from lemica_planner.errors import PlannerError

__all__ = ["PipelineError"]


class PipelineError(PlannerError):
    """The pipeline is built, or behaves, in a way that a step cache cannot follow."""
