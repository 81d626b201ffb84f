"""Ray workers that one calibration after the other uses: loading a model takes longer than a small calibration."""

from __future__ import annotations

from lemica_planner.ray_runner import RayRunner

__all__ = ["KeptWorkers"]


class KeptWorkers(RayRunner):
    """A runner that a calibration does not close."""

    def close(self) -> None:
        """Keep the workers for the next calibration."""

    def end(self) -> None:
        """End the workers, and the connection if this made it."""
        super().close()
