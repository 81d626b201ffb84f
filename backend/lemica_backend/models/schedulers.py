"""Samplers by name: those that a model may be given in place of its own."""

from __future__ import annotations

import inspect
import math
from typing import Any

import diffusers

from lemica_backend.config import SchedulerConfig
from lemica_backend.errors import ModelLoadError

__all__ = ["SCHEDULERS", "describe_scheduler", "make_scheduler", "takes_timesteps"]

# One model call a step and no noise of their own: a seed must mean one video, and a step one forward.
SCHEDULERS = (
    "DDIMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "UniPCMultistepScheduler",
)
_WHERE = "model.json: scheduler"
_OWN_SIGMAS = ("use_karras_sigmas", "use_lu_lambdas", "use_exponential_sigmas", "use_beta_sigmas")
_SHIFTS = ("use_dynamic_shifting", "shift_terminal", "invert_sigmas")  # of flow matching


def make_scheduler(own: Any, choice: SchedulerConfig) -> Any:
    """Return the chosen diffusers scheduler, with the own one's parameters where the choice names none.

    Raises
    ------
    ModelLoadError
        If there is no such scheduler, it draws noise, or it does not take a parameter; what is allowed is named. Also
        if no class is given and the own one is none of diffusers'.
    """
    name = choice.class_name or type(own).__name__
    if choice.class_name is not None and name not in SCHEDULERS:
        raise ModelLoadError(f"{_WHERE}.class is {name!r}; allowed are {', '.join(SCHEDULERS)}")
    kind = getattr(diffusers, name, None)
    if kind is None:
        raise ModelLoadError(f"{_WHERE}: the model's own sampler takes no parameters; give a class")
    taken = inspect.signature(kind.__init__).parameters
    unknown = sorted(set(choice.parameters) - set(taken))
    if unknown:
        raise ModelLoadError(f"{_WHERE}: {name} takes no {', '.join(unknown)}; it takes {', '.join(list(taken)[1:])}")
    inherited = {key: value for key, value in own.config.items() if key in taken}
    try:
        made = kind(**(inherited | choice.parameters))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ModelLoadError(f"{_WHERE}: {name} refuses its parameters: {error}") from error
    _require_use(made, choice)
    return made


def _require_use(made: Any, choice: SchedulerConfig) -> None:
    if str(made.config.get("algorithm_type", "")).startswith("sde"):
        raise ModelLoadError(f"{_WHERE}.algorithm_type draws noise at every step; use dpmsolver++")
    if choice.timesteps is None:
        return
    if not takes_timesteps(made):
        raise ModelLoadError(f"{_WHERE}.timesteps: {type(made).__name__} takes none; DPMSolverMultistepScheduler does")
    last = made.config.num_train_timesteps - 1
    if choice.timesteps[0] > last:
        raise ModelLoadError(f"{_WHERE}.timesteps: {choice.timesteps[0]} is above {last}")


def takes_timesteps(scheduler: Any) -> bool:
    """Return whether it can be told its timesteps, and then has the noise levels that belong to them.

    Flow matching with a shift would move the noise levels once more, and no longer fit its own timesteps.
    """
    config, setter = scheduler.config, getattr(scheduler, "set_timesteps", None)
    if setter is None or "timesteps" not in inspect.signature(setter).parameters:
        return False
    return not any(config.get(name) for name in (*_OWN_SIGMAS, *_SHIFTS)) and config.get("shift", 1.0) == 1.0


def describe_scheduler(scheduler: Any) -> dict[str, Any]:
    """Return its parameters as JSON values; JSON has no infinity, so that one becomes text."""
    known = {key: value for key, value in sorted(scheduler.config.items()) if not key.startswith("_")}
    return {key: str(value) if _is_infinite(value) else value for key, value in known.items()}


def _is_infinite(value: object) -> bool:
    return isinstance(value, float) and math.isinf(value)
