"""Samplers by name, and ways to spend forwards: a sampler, its number of steps, and which of them are computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
_ONE_STEP = ("DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler")
HELD = "noise"  # the operator that holds the noise of the last computed step


@dataclass(frozen=True)
class Sampler:
    """A sampler, in the words of diffusers; whoever runs the model knows what they mean.

    Attributes
    ----------
    name : str
    scheduler : str or None
        Class name; of the model's own sampler, ``own``, None until whoever runs it states it.
    parameters : mapping
        What differs from the model's own parameters.
    timesteps : tuple of int or None
        The timesteps themselves, in place of a spacing.
    like : str
        Name of the sampler whose timesteps it takes, where its own spacings lack them; `resolved` asks for them.
    """

    name: str
    scheduler: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    timesteps: tuple[int, ...] | None = None
    like: str = ""

    @property
    def is_one_step(self) -> bool:
        """Whether a step depends on nothing before it, so that held noise makes one bigger step of several."""
        return self.scheduler in _ONE_STEP

    def resolved(self, num_steps: int, timesteps: Callable[[Sampler, int], Sequence[float]]) -> Sampler:
        """Return the sampler for that number of steps, with the timesteps of the one that it is `like`."""
        if not self.like:
            return self
        given = tuple(round(step) for step in timesteps(parse_sampler(self.like), num_steps))
        return replace(self, timesteps=given, like="")

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

    After an ``@``, such as in ``dpmsolver++@ddim-linspace``, stands another sampler whose timesteps it takes.

    Raises
    ------
    CalibrationError
        If there is no such family or variant; those there are are named.
    """
    if text == OWN.name:
        return OWN
    name, _, like = text.partition("@")
    family, *variants = name.split("-")
    unknown = [variant for variant in variants if variant not in _VARIANTS]
    if family not in _FAMILIES or unknown:
        raise CalibrationError(
            f"there is no sampler {text!r}; give own, or one of {', '.join(_FAMILIES)}, followed by any of "
            f"{', '.join('-' + variant for variant in _VARIANTS)}"
        )
    scheduler, parameters = _FAMILIES[family]
    chosen = {key: value for variant in variants for key, value in _VARIANTS[variant].items()}
    return Sampler(text, scheduler, parameters | chosen, like=parse_sampler(like).name if like else "")


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
        Where the entry, or the choice of timesteps, comes from: ``even`` or ``measured``; empty without one.
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
        if self.entry is None:
            return "timesteps" if self.plan else "fewer"
        return "timesteps" if self.operator == HELD and self.sampler.is_one_step else "cached"

    @property
    def name(self) -> str:
        """What people read: sampler, steps, and how the skipped ones are filled in."""
        steps = f"{self.sampler.name}, {self.num_steps} steps"
        plan = f" ({self.plan})" if self.plan else ""
        return steps + plan if self.entry is None else f"{steps}, {self.operator}{plan}"

    @property
    def key(self) -> str:
        """Text that is the same for the same way only."""
        return canonical(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the way as JSON values."""
        known: dict[str, Any] = {"sampler": self.sampler.to_dict(), "num_steps": self.num_steps}
        known |= {"plan": self.plan} if self.plan else {}
        return known if self.entry is None else known | {"entry": self.entry.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Way:
        """Build from what `to_dict` returned."""
        entry = PlanEntry.from_dict(data["entry"], "entry") if "entry" in data else None
        return cls(Sampler.from_dict(data["sampler"]), data["num_steps"], entry, data.get("plan", ""))
