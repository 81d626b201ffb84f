"""What a finished request's `info` output says."""

from __future__ import annotations

from typing import Any, NamedTuple

from lemica_backend.config import PIPELINE, ModelConfig
from lemica_backend.planned import PlannedRequest
from lemica_backend.worker import Decoded


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


def make_info(
    planned: PlannedRequest, decoded: Decoded, timings_ms: dict[str, float], config: ModelConfig, account: Account
) -> dict[str, Any]:
    """Return the JSON-ready account of a finished request; times in ms, errors in units of the plan's metric."""
    eta_ms, miss = account.eta_ms, decoded.forecast_miss
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
        "outside_plan": list(planned.outside_plan),
        "calibrated": planned.is_calibrated,
        "block_engine": planned.block_engine,
        "plan_engine": planned.plan_engine,
        "forecast_miss": None if miss is None else round(miss, 3),
        "quality_warning": miss is not None and miss > config.warn_above,
        "shares_forwards": config.family != PIPELINE,
        "fps": config.fps,
        "eta_ms": None if eta_ms is None else round(eta_ms, 3),
        "eta_error_ms": None if eta_ms is None else round(timings_ms["total"] - eta_ms, 3),
        "timings_ms": {name: round(value, 3) for name, value in timings_ms.items()},
        "step_ms": [[round(value, 3), computed] for value, computed in decoded.step_ms],
    }
