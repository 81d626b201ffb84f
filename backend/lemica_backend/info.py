"""What a finished request's `info` output says."""

from __future__ import annotations

from typing import Any, NamedTuple

from lemica_backend.job import Job


class Account(NamedTuple):
    """What the engine decided about a request.

    Attributes
    ----------
    chosen_budget : int
        Computed steps with which it started.
    replanned : tuple of (int, int)
        For each new plan, the first step that followed it and the number of computed steps it leads to.
    eta_ms : float or None
        Milliseconds from arrival to the answer, as predicted when it was accepted; None if nothing could be predicted.
    """

    chosen_budget: int
    replanned: tuple[tuple[int, int], ...]
    eta_ms: float | None


def make_info(job: Job, timings_ms: dict[str, float], fps: int, account: Account) -> dict[str, Any]:
    """Return the JSON-ready account of a finished job; times in milliseconds, errors in units of the plan's metric."""
    planned, eta_ms = job.planned, account.eta_ms
    return {
        "seed": planned.seed,
        "guidance_scale": planned.guidance_scale,
        "num_inference_steps": planned.num_inference_steps,
        "budget": planned.budget,
        "chosen_budget": account.chosen_budget,
        "replanned": [list(each) for each in account.replanned],
        "computed_steps": sorted(planned.computed),
        "operators": sorted({fill.operator for fill in planned.reuse.values()}),
        "predicted_error": planned.predicted_error,
        "plan_id": planned.plan_id,
        "calibrated": planned.is_calibrated,
        "fps": fps,
        "eta_ms": None if eta_ms is None else round(eta_ms, 3),
        "eta_error_ms": None if eta_ms is None else round(timings_ms["total"] - eta_ms, 3),
        "timings_ms": {name: round(value, 3) for name, value in timings_ms.items()},
        "step_ms": [[round(value, 3), computed] for value, computed in job.step_ms],
    }
