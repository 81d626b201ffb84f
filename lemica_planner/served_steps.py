"""Whether requests that say nothing about steps can use a plan: what the model's own file says they take."""

from __future__ import annotations

import json
from pathlib import Path

from lemica_planner.provenance import Provenance

__all__ = ["describe_misfit"]

_STEPS, _BUDGET = 50, "full"  # what the backend takes where model.json states neither


def describe_misfit(config_path: Path, planned: Provenance) -> str | None:
    """Return what to tell about a plan for another number of steps than the model's requests take by default.

    Parameters
    ----------
    config_path : Path
        The model's ``config.pbtxt``; ``model.json`` is looked for in the version folder beside it with the highest
        number, which is the one that Triton serves.
    planned : Provenance
        Of the plan.

    Returns
    -------
    str or None
        None if the numbers agree, or no ``model.json`` tells.
    """
    path = _model_file(config_path.parent)
    defaults = None if path is None else _defaults(path)
    if defaults is None:
        return None
    steps, budget = defaults.get("num_inference_steps", _STEPS), defaults.get("budget", _BUDGET)
    if steps == planned.num_inference_steps:
        return None
    refused = "requests that use the plan without stating their steps" if budget == _BUDGET else "to load the model"
    return (
        f"the plan is for {planned.num_inference_steps} steps, and {path} takes {steps} by default: the server will "
        f"refuse {refused}. Set defaults.num_inference_steps to {planned.num_inference_steps}, or apply a plan for "
        f"{steps} steps"
    )


def _model_file(folder: Path) -> Path | None:
    versions = [path for path in folder.iterdir() if path.name.isdigit() and (path / "model.json").is_file()]
    return max(versions, key=lambda path: int(path.name)) / "model.json" if versions else None


def _defaults(path: Path) -> dict[str, object] | None:
    """Return the section ``defaults``; what is wrong with the file is for the server to say."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    defaults = known.get("defaults", {}) if isinstance(known, dict) else None
    return defaults if isinstance(defaults, dict) else None
