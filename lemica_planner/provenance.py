"""What a set of measured errors, and the plan made from it, is valid for."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from typing import Any, NamedTuple

from lemica_planner.errors import PlanFormatError, PlanMismatchError
from lemica_planner.strict_json import check_keys, describe


class Sample(NamedTuple):
    """One calibration trajectory.

    Attributes
    ----------
    prompt : str
        The text that the sample is generated from.
    seed : int
        Seed of its initial noise.
    image : str
        Path of the image that its video begins with; empty for models of text alone.
    image_sha256 : str
        Of that file, so that another one under its name is noticed.
    """

    prompt: str
    seed: int
    image: str = ""
    image_sha256: str = ""

    def to_list(self) -> list[str | int]:
        """Return the fields as JSON values, what an image is only where there is one: `Sample` of them is the same."""
        return list(self) if self.image else [self.prompt, self.seed]


def tool_version() -> str:
    """Return the installed version of this distribution, ``"0+unknown"`` if it runs uninstalled."""
    try:
        return metadata.version("lemica")
    except metadata.PackageNotFoundError:
        return "0+unknown"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What measured errors are valid for; an immutable value.

    A field that is None was not stated by the source and cannot be checked. A calibrated provenance states all of
    `_STATED`, so that nothing served can slip past `require_match`.

    Attributes
    ----------
    num_inference_steps : int
        Denoising steps T of the trajectory.
    model, weights_hash : str or None
        Name of the model (folder or hub id) and hash of its weights.
    scheduler : str or None
        Class name of the scheduler.
    scheduler_config : mapping or None
        Its parameters, as JSON values. Keys with a leading underscore are bookkeeping and never compared.
    guidance_scale : float or None
        Classifier-free guidance; 1.0 is none.
    num_frames, height, width : int or None
        Size of the video: frames, and pixels.
    operator : str
        What a skipped step puts in place of the block stack, such as ``"residual"`` (the paper's).
    metric : str or None
        Measure of an edge's error, such as ``"latents_l1"``: mean absolute difference of the final latents.
    calibration : mapping
        How the errors were measured: samples, prompts_sha256, seeds, max_span; empty if they were not.
    tool_version : str
        Version of this distribution that made it.
    source : str or None
        Where steps that were not calibrated here come from.
    calibrated : bool
        Whether the errors were measured by this tool.
    block_engine : str or None
        What ran the block stack when the errors were measured; None for torch's eager mode. Never compared: engines
        agree within their bounds.

    Raises
    ------
    PlanFormatError
        If a field has the wrong type or an impossible value.
    """

    num_inference_steps: int
    model: str | None = None
    weights_hash: str | None = None
    scheduler: str | None = None
    scheduler_config: Mapping[str, Any] | None = None
    guidance_scale: float | None = None
    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    operator: str = "residual"
    metric: str | None = "latents_l1"
    calibration: Mapping[str, Any] = field(default_factory=dict)
    tool_version: str = field(default_factory=tool_version)
    source: str | None = None
    calibrated: bool = False
    block_engine: str | None = None

    def __post_init__(self) -> None:
        for name, (kinds, wanted) in _FIELDS.items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), kinds, wanted))
        if self.num_inference_steps < 2:
            raise PlanFormatError(f"num_inference_steps must be at least 2; got {self.num_inference_steps}")
        unstated = [name for name in _STATED if getattr(self, name) is None]
        if self.calibrated and unstated:
            raise PlanFormatError(f"a calibrated provenance must state {unstated}; got None; state them")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Provenance:
        """Build from the parsed JSON of `to_dict`; unknown and missing keys are refused."""
        required = [entry.name for entry in fields(cls) if entry.name not in _LATER]
        check_keys(data, "provenance", required=required, optional=_LATER)
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values; those that older plans lack only where they say something."""
        return {name: value for name, value in asdict(self).items() if value is not None or name not in _LATER}

    def require_match(self, **served: object) -> None:
        """Refuse to serve something else than what the errors are valid for.

        Parameters
        ----------
        **served
            Fields of this class with the values that are served. Fields that this provenance does not state, and
            keys of `scheduler_config` that begin with an underscore, are not compared.

        Raises
        ------
        PlanMismatchError
            Naming every field that differs.
        TypeError
            If a name is no field of this class.
        """
        unknown = sorted(set(served) - set(_FIELDS))
        if unknown:
            raise TypeError(f"provenance has no fields {unknown}; allowed: {sorted(_FIELDS)}")
        differences: dict[str, tuple[Any, Any]] = {}
        for name, value in served.items():
            differences.update(_differences(name, getattr(self, name), _normal(value)))
        if differences:
            raise PlanMismatchError(differences)


def describe_samples(samples: Sequence[Sample], max_span: int) -> dict[str, Any]:
    """Return the `calibration` field for a run over `samples` with reuse over at most `max_span` steps."""
    prompts = "\n".join(dict.fromkeys(sample.prompt for sample in samples))
    images = "\n".join(dict.fromkeys(sample.image_sha256 for sample in samples if sample.image))
    return {
        "samples": len(samples),
        "prompts_sha256": hashlib.sha256(prompts.encode()).hexdigest(),
        "seeds": sorted({sample.seed for sample in samples}),
        "max_span": max_span,
        **({"images_sha256": hashlib.sha256(images.encode()).hexdigest()} if images else {}),
    }


_STATED = (
    "model",
    "weights_hash",
    "scheduler",
    "scheduler_config",
    "guidance_scale",
    "num_frames",
    "height",
    "width",
    "metric",
)
_LATER = ("block_engine",)  # fields that came after the first plans
_NONE = type(None)
_TEXT = ((str, _NONE), "text or null")
_COUNT = ((int, _NONE), "a positive integer or null")
_FIELDS: dict[str, tuple[tuple[type, ...], str]] = {
    "num_inference_steps": ((int,), "a positive integer"),
    "model": _TEXT,
    "weights_hash": _TEXT,
    "scheduler": _TEXT,
    "scheduler_config": ((Mapping, _NONE), "an object of JSON values or null"),
    "guidance_scale": ((float, int, _NONE), "a finite number or null"),
    "num_frames": _COUNT,
    "height": _COUNT,
    "width": _COUNT,
    "operator": ((str,), "text"),
    "metric": _TEXT,
    "calibration": ((Mapping,), "an object of JSON values"),
    "tool_version": ((str,), "text"),
    "source": _TEXT,
    "calibrated": ((bool,), "true or false"),
    "block_engine": _TEXT,
}


def _checked(name: str, value: object, kinds: tuple[type, ...], wanted: str) -> object:
    """Return the normal form of a field's value: what JSON would give back."""
    right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    if right and int in kinds and float not in kinds:
        right = value is None or value > 0  # type: ignore[operator]
    if right and float in kinds and value is not None:
        value = float(value)  # type: ignore[arg-type]
        right = math.isfinite(value)
    if not right:
        raise PlanFormatError(f"provenance.{name} must be {wanted}; got {describe(value)}")
    return _plain(name, value) if isinstance(value, Mapping) else value


def _plain(name: str, value: Mapping[str, Any]) -> object:
    """Return a deep copy made of JSON types only, so that a round trip through text is exact."""
    try:
        return json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as exc:
        raise PlanFormatError(f"provenance.{name} must hold finite JSON values only ({exc}); got {value!r}") from exc


def _normal(value: object) -> object:
    return json.loads(json.dumps(dict(value), default=str)) if isinstance(value, Mapping) else value


def _differences(name: str, planned: Any, served: Any) -> dict[str, tuple[Any, Any]]:
    if planned is None or planned == served:
        return {}
    if not (isinstance(planned, dict) and isinstance(served, dict)):
        return {name: (planned, served)}
    keys = sorted(key for key in planned.keys() | served.keys() if not key.startswith("_"))
    pairs = {f"{name}.{key}": (planned.get(key), served.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
