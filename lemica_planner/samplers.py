"""Samplers by name, and ways to spend forwards: a sampler, its number of steps, and which of them are computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lemica_planner.errors import CalibrationError
from lemica_planner.plan_entry import PlanEntry
from lemica_planner.strict_json import canonical

__all__ = ["HELD", "OWN", "Sampler", "Way", "parse_sampler"]

_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {"solver_order": 2, "solver_type": "bh2"}),
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "deis": ("DEISMultistepScheduler", {"solver_order": 2}),
}
_VARIANTS: dict[str, dict[str, Any]] = {
    "leading": {"timestep_spacing": "leading"},
    "linspace": {"timestep_spacing": "linspace"},
    "trailing": {"timestep_spacing": "trailing"},
    "karras": {"use_karras_sigmas": True},
    "lu": {"use_lu_lambdas": True},
}
_ONE_STEP = ("ddim", "euler")
HELD = "noise"  # the operator that holds the noise of the last computed step


@dataclass(frozen=True)
class Sampler:
    """A sampler, in the words of diffusers; whoever runs the model knows what they mean.

    Attributes
    ----------
    name : str
    scheduler : str or None
        Class name; None for the model's own sampler.
    parameters : mapping
        What differs from the model's own parameters.
    timesteps : tuple of int or None
        The timesteps themselves, in place of a spacing.
    """

    name: str
    scheduler: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    timesteps: tuple[int, ...] | None = None

    @property
    def is_one_step(self) -> bool:
        """Whether a step depends on nothing before it, so that held noise makes one bigger step of several."""
        return self.name.partition("-")[0] in _ONE_STEP

    def to_dict(self) -> dict[str, Any]:
        """Return the sampler as JSON values."""
        known: dict[str, Any] = {"name": self.name, "class": self.scheduler, "parameters": dict(self.parameters)}
        return known if self.timesteps is None else known | {"timesteps": list(self.timesteps)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sampler:
        """Build from what `to_dict` returned."""
        timesteps = data.get("timesteps")
        return cls(data["name"], data["class"], data["parameters"], None if timesteps is None else tuple(timesteps))


OWN = Sampler("own")


def parse_sampler(text: str) -> Sampler:
    """Read ``own``, or a family with variants, such as ``ddim-trailing``, ``unipc`` or ``dpmsolver++-karras``.

    Raises
    ------
    CalibrationError
        If there is no such family or variant; those there are are named.
    """
    if text == OWN.name:
        return OWN
    family, *variants = text.split("-")
    unknown = [variant for variant in variants if variant not in _VARIANTS]
    if family not in _FAMILIES or unknown:
        raise CalibrationError(
            f"there is no sampler {text!r}; give own, or one of {', '.join(_FAMILIES)}, followed by any of "
            f"{', '.join('-' + variant for variant in _VARIANTS)}"
        )
    scheduler, parameters = _FAMILIES[family]
    return Sampler(text, scheduler, {**parameters, **{k: v for each in variants for k, v in _VARIANTS[each].items()}})


@dataclass(frozen=True)
class Way:
    """One way to make a video.

    Attributes
    ----------
    sampler : Sampler
    num_steps : int
        Steps T.
    entry : PlanEntry or None
        The computed steps and what fills in the others; None computes all.
    plan : str
        Where the entry comes from: ``even`` or ``measured``; empty without an entry.
    """

    sampler: Sampler
    num_steps: int
    entry: PlanEntry | None = None
    plan: str = ""

    @property
    def cost(self) -> int:
        """Forwards of the model."""
        return self.num_steps if self.entry is None else self.entry.budget

    @property
    def operator(self) -> str:
        """What fills in skipped steps, several names joined by ``+``; empty where none is skipped."""
        return "" if self.entry is None else "+".join(dict.fromkeys(self.entry.operators or ("residual",)))

    @property
    def kind(self) -> str:
        """``fewer`` steps, ``timesteps`` that were chosen, or ``cached``.

        To hold the noise is to take a bigger step, where the sampler has no memory: no cache is needed.
        """
        if self.sampler.timesteps or (self.operator == HELD and self.sampler.is_one_step):
            return "timesteps"
        return "cached" if self.entry else "fewer"

    @property
    def name(self) -> str:
        """What people read: sampler, steps, and how the skipped ones are filled in."""
        steps = f"{self.sampler.name}, {self.num_steps} steps"
        return steps if self.entry is None else f"{steps}, {self.operator} ({self.plan})"

    @property
    def key(self) -> str:
        """Text that is the same for the same way only."""
        return canonical(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the way as JSON values."""
        known: dict[str, Any] = {"sampler": self.sampler.to_dict(), "num_steps": self.num_steps}
        return known if self.entry is None else known | {"entry": self.entry.to_dict(), "plan": self.plan}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Way:
        """Build from what `to_dict` returned."""
        sampler = Sampler.from_dict(data["sampler"])
        if "entry" not in data:
            return cls(sampler, data["num_steps"])
        return cls(sampler, data["num_steps"], PlanEntry.from_dict(data["entry"], "entry"), data["plan"])
