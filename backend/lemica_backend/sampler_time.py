"""The variable in which forecasts are straight lines; it is the planner's, see `lemica_backend.operators`."""

from lemica_planner.sampler_time import sampler_times

__all__ = ["sampler_times"]
