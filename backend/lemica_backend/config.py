"""What an operator sets in a model's ``model.json``: which weights, on which device, within which limits.

The cache plan is not in it: that one lives in config.pbtxt, where Triton shows and replaces it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from lemica_backend.config_sections import (
    Blocks,
    Decode,
    Defaults,
    EngineName,
    Limits,
    Log,
    Memory,
    Offload,
    PositiveInt,
    Precision,
    Quantization,
    SchedulerConfig,
    Scheduling,
    Size,
)
from lemica_backend.errors import ModelLoadError
from lemica_backend.section import Section, validate_json

__all__ = [
    "MODEL_FILE",
    "PIPELINE",
    "Blocks",
    "Decode",
    "Defaults",
    "Device",
    "EngineName",
    "Family",
    "Limits",
    "Log",
    "Memory",
    "ModelConfig",
    "Offload",
    "PositiveInt",
    "Precision",
    "Quantization",
    "SchedulerConfig",
    "Scheduling",
    "Size",
    "load_config",
]

MODEL_FILE = "model.json"

PIPELINE: Final = "pipeline"  # any pipeline of diffusers, run as it is
Family = Literal[
    "latte",
    "open_sora",
    "wan",
    "wan_i2v",
    "cogvideox",
    "cogvideox_i2v",
    "hunyuan_video",
    "hunyuan_video_15",
    "ltx",
    "mochi",
    "pipeline",
]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")]


class ModelConfig(Section):
    """The whole of ``model.json``; every field has a default, unknown fields are refused.

    Attributes
    ----------
    family : str or None
        Kind of model; None takes what ``model_index.json`` beside the weights says. ``pipeline`` runs any pipeline of
        diffusers as it is, one request at a time.
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
    devices : tuple of str or None
        Several of them, in place of `device`: each gets a worker, and all are fed from one queue.
    context_parallel : int
        Devices that compute one video together: so many neighbours in `devices` are one worker.
    threads : int or None
        CPU threads of one operation; None leaves it to torch.
    spare_worker : bool
        Whether each device keeps a process at hand that has imported everything and loaded nothing, for when its worker
        is lost.
    fps : int
        Frames per second of encoded videos.
    warn_above : float
        Requests whose forecasts miss more than this many times what is usual get a ``quality_warning``.
    scheduler : SchedulerConfig or None
        The sampler; None for the pipeline's own.
    attention_backend : str or None
        Which of diffusers' attention backends the transformers use; None for torch's own choice.
    size : Size
    decode : Decode
    offload : Offload
    quantization : Quantization or None
        None for weights in `dtype`.
    options : dict
        What the family's pipeline takes beside a request; the family checks them.
    outside_plan : {"refuse", "full"}
        What becomes of a request with a budget whose steps or guidance are not those of the plan.
    defaults : Defaults
    limits : Limits
    scheduling : Scheduling
    blocks : Blocks
    log : Log
    """

    family: Family | None = None
    weights: str = "weights"
    hub_id: str | None = None
    hub_revision: str | None = None
    allow_hub: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    devices: Annotated[tuple[Device, ...], Field(strict=False, min_length=1)] | None = None
    context_parallel: PositiveInt = 1
    threads: PositiveInt | None = None
    spare_worker: bool = False
    fps: Annotated[int, Field(ge=1, le=240)] = 8
    warn_above: Annotated[float, Field(gt=0)] = 1.3
    scheduler: SchedulerConfig | None = None
    attention_backend: str | None = None
    size: Size = Size()
    decode: Decode = Decode()
    offload: Offload = Offload()
    quantization: Quantization | None = None
    options: dict[str, bool | int | float | str | list[str] | None] = Field(default_factory=dict)
    outside_plan: Literal["refuse", "full"] = "refuse"
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    scheduling: Scheduling = Scheduling()
    blocks: Blocks = Blocks()
    log: Log = Log()

    @model_validator(mode="after")
    def _source(self) -> Self:
        if self.hub_id is not None and not self.allow_hub:
            raise ValueError('hub_id downloads weights at start-up, which needs "allow_hub": true')
        if self.hub_id is not None and "weights" in self.model_fields_set:
            raise ValueError("give weights or hub_id, not both")
        return self

    @model_validator(mode="after")
    def _places(self) -> Self:
        if self.devices is not None and "device" in self.model_fields_set:
            raise ValueError("give device or devices, not both")
        return self

    @model_validator(mode="after")
    def _alone(self) -> Self:
        if self.family == PIPELINE and self.limits.max_active != 1:
            raise ValueError("limits.max_active must be 1: family 'pipeline' runs one request at a time on each device")
        if self.family == PIPELINE and self.scheduler is not None:
            raise ValueError("scheduler: family 'pipeline' runs with the scheduler of its weights: leave it out")
        return self

    @model_validator(mode="after")
    def _kept(self) -> Self:
        if self.offload.text_encoders and self.family == PIPELINE:
            raise ValueError(
                "offload.text_encoders: family 'pipeline' computes where its text encoder is: leave it out"
            )
        if self.quantization and self.blocks.engine != "eager":
            raise ValueError(
                f"blocks.engine is {self.blocks.engine!r}, which takes no quantised weights: with quantization, take "
                "'eager'"
            )
        return self

    @model_validator(mode="after")
    def _grouped(self) -> Self:
        count, devices = self.context_parallel, list(self.devices or ())
        if count == 1:
            return self
        if self.family == PIPELINE:
            raise ValueError("context_parallel: family 'pipeline' computes a video on one device: leave it out")
        if self.blocks.engine != "eager":
            raise ValueError(
                f"blocks.engine is {self.blocks.engine!r}, which runs all tokens on one device: with context_parallel, "
                "take 'eager'"
            )
        if not devices or len(devices) % count:
            raise ValueError(f"context_parallel is {count}, and devices are {devices}: list {count} for each worker")
        for group in self.worker_groups:
            if set(group) != {"cpu"} and (len(set(group)) < count or {"cpu", "cuda"} & set(group)):
                raise ValueError(
                    f"devices: {list(group)} cannot compute one video together: take a cuda:N of its own for each"
                )
        return self

    @property
    def memory(self) -> Memory:
        """How the weights are kept."""
        return Memory(self.offload, self.quantization)

    @property
    def worker_devices(self) -> tuple[str, ...]:
        """The device of each worker, the first one where it has several."""
        return tuple(group[0] for group in self.worker_groups)

    @property
    def worker_groups(self) -> tuple[tuple[str, ...], ...]:
        """The devices of each worker."""
        devices, count = self.devices or (self.device,), self.context_parallel
        return tuple(devices[at : at + count] for at in range(0, len(devices), count))

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
    """Read and check a ``model.json``; raises what `validate_json` raises."""
    return validate_json(ModelConfig, path)
