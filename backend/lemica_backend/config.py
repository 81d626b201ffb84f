"""What an operator sets in a model's ``model.json``: which weights, on which device, within which limits.

The cache plan is not in it: that one lives in config.pbtxt, where Triton shows and replaces it.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lemica_backend.errors import ModelLoadError

MODEL_FILE = "model.json"

Family = Literal["latte", "open_sora", "wan", "cogvideox", "hunyuan_video", "hunyuan_video_15", "ltx", "mochi"]
PositiveInt = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    # strict: "8" for 8 is a typing error of the operator's; finite: JSON parsers let NaN and Infinity through
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Defaults(_Section):
    """What a request gets that does not say otherwise.

    Attributes
    ----------
    num_inference_steps : int
        Denoising steps.
    guidance_scale : float
        Weight of classifier-free guidance; at most 1 turns guidance off.
    budget : str
        ``full``, a name in the plan, a number of computed steps, or a range of them, ``floor..ceiling``.
    """

    num_inference_steps: PositiveInt = 50
    guidance_scale: float = 4.0
    budget: str = "full"


class Size(_Section):
    """Of every video that the model makes; what is left out is the pipeline's default.

    Attributes
    ----------
    height, width : int or None
        Pixels.
    num_frames : int or None
    """

    height: PositiveInt | None = None
    width: PositiveInt | None = None
    num_frames: PositiveInt | None = None


class Limits(_Section):
    """What a request may ask for, and how much the engine takes on.

    Attributes
    ----------
    max_active : int
        Requests that are started and not finished; more need more memory.
    cache_bytes : int or None
        Bytes that the step caches of all started requests may hold together; None for no limit.
    max_queue : int
        Requests that wait for their first step; one more is answered UNAVAILABLE.
    max_prompt_bytes : int
        Of UTF-8, for each of `prompt` and `negative_prompt`.
    timeout_s : float
        Seconds after which an unfinished request is given up.
    min_steps, max_steps : int
        Bounds of `num_inference_steps`, both included.
    max_guidance_scale : float
        Above it, the latents only overflow.
    """

    max_active: PositiveInt = 8
    cache_bytes: PositiveInt | None = None
    max_queue: PositiveInt = 64
    max_prompt_bytes: PositiveInt = 4096
    timeout_s: Annotated[float, Field(gt=0)] = 600.0
    min_steps: PositiveInt = 1
    max_steps: PositiveInt = 1000
    max_guidance_scale: Annotated[float, Field(ge=1)] = 100.0

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.min_steps > self.max_steps:
            raise ValueError(f"min_steps ({self.min_steps}) must be at most max_steps ({self.max_steps})")
        return self


class SchedulerConfig(_Section):
    """Another sampler than the pipeline's own, or the own one with other parameters.

    Attributes
    ----------
    class_name : str or None
        In JSON ``class``: a scheduler of diffusers; None for the pipeline's own.
    timesteps : tuple of int or None
        The timesteps themselves, falling, in place of a spacing; the model then serves that number of steps only.

    Every other key is a parameter of the class. Those that are not given are the own scheduler's, where both have
    them, or the class's defaults.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True)

    class_name: str | None = Field(default=None, alias="class")
    timesteps: Annotated[tuple[int, ...], Field(strict=False, min_length=1)] | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the class that are given."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _falling(self) -> Self:
        steps = self.timesteps or ()
        if any(one <= next_one for one, next_one in pairwise(steps)) or min(steps, default=0) < 0:
            raise ValueError(f"timesteps must fall, and not below 0; got {list(steps)}")
        return self


class Scheduling(_Section):
    """Which of the accepted requests go on, and what the engine may change about them.

    Attributes
    ----------
    policy : {"srpt", "fcfs", "edf"}
        Of requests of the same priority: least work left first, first come first, or earliest deadline first.
    ageing : float
        For ``srpt``, seconds of work left that a second of waiting makes up for. Above 0, so that nothing starves.
    share_margin : float
        Requests share a forward where that saves at least this share of what one more costs alone.
    align_ticks : int
        Ticks that a request may wait before a computed step for others to catch up and share it; 0 for none.
    deadline_margin : float
        A deadline counts as met if what is predicted, plus this share of it, is within it.
    client_lead : float
        How far a client may be ahead of another one that waits, in default requests computed in full.
    replan : bool
        Whether a started request whose budget is a range may get another number of computed steps.
    warm_up_s : float
        Seconds for measuring forwards at load; 0 for none. One request is measured to its decoding in any case.
    """

    policy: Literal["srpt", "fcfs", "edf"] = "srpt"
    ageing: Annotated[float, Field(gt=0)] = 0.5
    share_margin: Annotated[float, Field(ge=0, lt=1)] = 0.1
    align_ticks: Annotated[int, Field(ge=0)] = 8
    deadline_margin: Annotated[float, Field(ge=0)] = 0.1
    client_lead: Annotated[float, Field(ge=0)] = 1.0
    replan: bool = True
    warm_up_s: Annotated[float, Field(ge=0)] = 2.0


class ModelConfig(_Section):
    """The whole of ``model.json``; every field has a default, unknown fields are refused.

    Attributes
    ----------
    family : str or None
        Kind of model; None takes what ``model_index.json`` beside the weights says.
    weights : str
        Folder in the diffusers layout, relative to the folder of ``model.json`` or absolute.
    hub_id : str or None
        Hugging Face id to take the weights from in place of `weights`; needs ``allow_hub``.
    hub_revision : str or None
        Commit or tag of `hub_id`; without one, a restart may take newer weights.
    allow_hub : bool
        Whether this server may download weights at start-up.
    dtype : str
        Of the transformer's arithmetic.
    device : str
        ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    threads : int or None
        CPU threads of one operation; None leaves it to torch.
    fps : int
        Frames per second of encoded videos.
    scheduler : SchedulerConfig or None
        The sampler; None for the pipeline's own.
    size : Size
    options : dict
        What the family's pipeline takes beside a request; the family checks them.
    defaults : Defaults
    limits : Limits
    scheduling : Scheduling
    """

    family: Family | None = None
    weights: str = "weights"
    hub_id: str | None = None
    hub_revision: str | None = None
    allow_hub: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    threads: PositiveInt | None = None
    fps: Annotated[int, Field(ge=1, le=240)] = 8
    scheduler: SchedulerConfig | None = None
    size: Size = Size()
    options: dict[str, bool | int | float] = Field(default_factory=dict)
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    scheduling: Scheduling = Scheduling()

    @model_validator(mode="after")
    def _source(self) -> Self:
        if self.hub_id is not None and not self.allow_hub:
            raise ValueError('hub_id downloads weights at start-up, which needs "allow_hub": true')
        if self.hub_id is not None and "weights" in self.model_fields_set:
            raise ValueError("give weights or hub_id, not both")
        return self

    @model_validator(mode="after")
    def _default_steps(self) -> Self:
        steps, limits = self.defaults.num_inference_steps, self.limits
        if not limits.min_steps <= steps <= limits.max_steps:
            allowed = f"limits.min_steps ({limits.min_steps}) to limits.max_steps ({limits.max_steps})"
            raise ValueError(f"defaults.num_inference_steps is {steps}, allowed are {allowed}")
        if self.scheduler and self.scheduler.timesteps and steps != len(self.scheduler.timesteps):
            raise ValueError(
                f"defaults.num_inference_steps is {steps}, but scheduler.timesteps are {len(self.scheduler.timesteps)}"
            )
        return self

    @model_validator(mode="after")
    def _default_guidance(self) -> Self:
        scale, limit = self.defaults.guidance_scale, self.limits.max_guidance_scale
        if not 0 <= scale <= limit:
            allowed = f"0 to limits.max_guidance_scale ({limit:g})"
            raise ValueError(f"defaults.guidance_scale is {scale:g}, allowed are {allowed}")
        return self

    def weights_dir(self, model_dir: Path) -> Path | None:
        """Return the folder of the weights on this machine; None where a `hub_id` names them.

        Raises
        ------
        ModelLoadError
            If there is no such folder.
        """
        if self.hub_id is not None:
            return None
        folder = model_dir / self.weights
        if not folder.is_dir():
            raise ModelLoadError(f"{model_dir / MODEL_FILE}: weights: there is no folder {folder}")
        return folder


def load_config(path: Path) -> ModelConfig:
    """Read and check a ``model.json``.

    Raises
    ------
    ModelLoadError
        If the file cannot be read, is not JSON, or a field is unknown or has a value that is not allowed;
        the message names the file, every such field, what was got and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{path}: cannot be read: {error}") from error
    try:
        return ModelConfig.model_validate_json(text)
    except ValidationError as error:
        raise ModelLoadError(f"{path}: {_describe(error)}") from error


def _describe(error: ValidationError) -> str:
    return "; ".join(_describe_field(dict(problem)) for problem in error.errors(include_url=False))


def _describe_field(problem: dict[str, object]) -> str:
    location = problem["loc"]
    assert isinstance(location, tuple)
    field = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        return f"{field}: no such field; allowed are {_allowed_fields(location[:-1])}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] in ("json_invalid", "value_error"):
        return f"{field}: {message}" if field else message
    return f"{field or 'the file'}: got {problem['input']!r}; {message}"


def _allowed_fields(location: tuple[object, ...]) -> str:
    sections: dict[tuple[object, ...], type[BaseModel]] = {
        ("defaults",): Defaults,
        ("limits",): Limits,
        ("scheduling",): Scheduling,
        ("size",): Size,
    }
    return ", ".join(sections.get(location, ModelConfig).model_fields)
