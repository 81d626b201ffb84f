"""Whether requests without steps and guidance can use a plan: what the model's own file says they take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from lemica_planner.provenance import Provenance

__all__ = ["describe_misfit"]

_STEPS, _GUIDANCE, _BUDGET = 50, 4.0, "full"  # what the backend takes where model.json does not state them


def describe_misfit(config_path: Path, planned: Provenance) -> str | None:
    """Return what to tell about a plan for other steps or guidance than the model's requests take by default.

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
        None if they agree, as far as the plan states them, or no ``model.json`` tells.
    """
    path = _model_file(config_path.parent)
    defaults = None if path is None else _defaults(path)
    if defaults is None:
        return None
    differences = _differences(defaults, planned)
    if not differences:
        return None
    made_for = " and ".join(f"{each.name} {each.planned}" for each in differences)
    taken = " and ".join(f"{each.name} {each.taken}" for each in differences)
    changes = " and ".join(f"defaults.{each.name} to {each.planned}" for each in differences)
    return (
        f"the plan is for {made_for}, and {path} takes {taken} by default: the server will refuse "
        f"{_refused(defaults, differences)}. Set {changes}, or apply a plan for {taken}"
    )


class _Difference(NamedTuple):
    name: str
    planned: float | None
    taken: object


def _differences(defaults: dict[str, object], planned: Provenance) -> list[_Difference]:
    """Return what the model takes otherwise than planned; what the plan does not state is not compared."""
    compared = (
        _Difference("num_inference_steps", planned.num_inference_steps, defaults.get("num_inference_steps", _STEPS)),
        _Difference("guidance_scale", planned.guidance_scale, defaults.get("guidance_scale", _GUIDANCE)),
    )
    return [each for each in compared if each.planned not in (None, each.taken)]


def _refused(defaults: dict[str, object], differences: list[_Difference]) -> str:
    if defaults.get("budget", _BUDGET) != _BUDGET:
        return "to load the model"
    return f"requests that use the plan without stating their {' and '.join(each.name for each in differences)}"


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
