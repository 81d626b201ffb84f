"""What a finished request's `info` output says."""

from __future__ import annotations

from typing import Any

from lemica_backend.job import Job


def make_info(job: Job, timings_ms: dict[str, float], fps: int) -> dict[str, Any]:
    """Return the JSON-ready account of a finished job; times in milliseconds, errors in units of the latents."""
    planned = job.planned
    return {
        "seed": planned.seed,
        "guidance_scale": planned.guidance_scale,
        "num_inference_steps": planned.num_inference_steps,
        "budget": planned.budget,
        "computed_steps": sorted(planned.computed),
        "operators": sorted({fill.operator for fill in planned.reuse.values()}),
        "predicted_error": planned.predicted_error,
        "plan_id": planned.plan_id,
        "calibrated": planned.is_calibrated,
        "fps": fps,
        "timings_ms": {name: round(value, 3) for name, value in timings_ms.items()},
        "step_ms": [[round(value, 3), computed] for value, computed in job.step_ms],
    }
