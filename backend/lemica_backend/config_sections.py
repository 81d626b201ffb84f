"""The objects inside of a ``model.json``."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, model_validator

from lemica_backend.section import Section

PositiveInt = Annotated[int, Field(ge=1)]
EngineName = Literal["eager", "compile", "aot", "onnxruntime", "openvino", "tensorrt"]
Precision = Literal["dtype", "bfloat16", "int8"]


class Defaults(Section):
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


class Size(Section):
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


class Decode(Section):
    """How the autoencoder decodes; both save memory, and frames may change a little.

    Attributes
    ----------
    tiling : bool
        In overlapping tiles.
    slicing : bool
        One video, or one frame of an autoencoder of images, at a time.
    """

    tiling: bool = False
    slicing: bool = False


class Offload(Section):
    """What waits in the CPU's memory, and is on the GPU only while it is used.

    Attributes
    ----------
    text_encoders : bool
    """

    text_encoders: bool = False


class Quantization(Section):
    """Weights in fewer bits, by a quantiser of diffusers, made while the model loads.

    Attributes
    ----------
    backend : {"torchao", "bitsandbytes_4bit", "bitsandbytes_8bit"}
    kwargs : dict
        Of the quantiser's configuration in diffusers. torchao's ``quant_type`` is the name of a configuration in
        ``torchao.quantization``, or an object with that name and its arguments.
    components : tuple of str
        Transformers and text encoders of the pipeline.
    """

    backend: Literal["torchao", "bitsandbytes_4bit", "bitsandbytes_8bit"]
    kwargs: dict[str, Any] = Field(default_factory=dict)
    components: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = ("transformer",)


class Memory(NamedTuple):
    """How the weights are kept."""

    offload: Offload = Offload()
    quantization: Quantization | None = None


class Limits(Section):
    """What a request may ask for, and how much the engine takes on.

    Attributes
    ----------
    max_active : int
        Requests that are started and not finished, on each device; more need more memory.
    cache_bytes : int or None
        Bytes that the step caches of all started requests of a device may hold together; None for no limit.
    max_queue : int
        Requests that wait for their first step; one more is answered UNAVAILABLE.
    max_queue_cache_bytes : int or None
        Bytes that the step caches of all waiting requests will need together, once started; what comes on top is
        answered UNAVAILABLE, unless nobody waits. None for no limit.
    worker_timeout_s : float
        Seconds in which a worker has to do one thing (a step, a text, a decoding), or it is ended as hanging.
    max_prompt_bytes : int
        Of UTF-8, for each of `prompt` and `negative_prompt`.
    max_image_bytes, max_image_pixels : int
        Of the file in `image`, and of the picture in it, for models that continue an image.
    timeout_s : float
        Seconds after which an unfinished request is given up.
    drain_s : float
        Seconds that accepted requests get to finish once the server is ending; less than its exit timeout.
    min_steps, max_steps : int
        Bounds of `num_inference_steps`, both included.
    max_guidance_scale : float
        Above it, the latents only overflow.
    """

    max_active: PositiveInt = 8
    cache_bytes: PositiveInt | None = None
    max_queue: PositiveInt = 64
    max_queue_cache_bytes: PositiveInt | None = None
    worker_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    max_prompt_bytes: PositiveInt = 4096
    max_image_bytes: PositiveInt = 16 << 20
    max_image_pixels: PositiveInt = 1 << 24
    timeout_s: Annotated[float, Field(gt=0)] = 600.0
    drain_s: Annotated[float, Field(ge=0)] = 20.0
    min_steps: PositiveInt = 1
    max_steps: PositiveInt = 1000
    max_guidance_scale: Annotated[float, Field(ge=1)] = 100.0

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.min_steps > self.max_steps:
            raise ValueError(f"min_steps ({self.min_steps}) must be at most max_steps ({self.max_steps})")
        return self


class SchedulerConfig(Section):
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


class Scheduling(Section):
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
    low_priority_share : float
        Of the time, kept for the oldest request that others pass by for their priority; 0 for none.
    replan : bool
        Whether a started request whose budget is a range may get another number of computed steps.
    warm_up_s : float
        Seconds for measuring forwards at load; 0 for none. One request is measured to its decoding in any case.
    drift_share : float
        Of the requests that skip steps: how many are also computed in full, when nothing else is to do, and compared.
    retry_lost : bool
        Whether a request whose worker was lost waits once more, in front of all others, and begins anew. If not, it is
        answered UNAVAILABLE.
    """

    policy: Literal["srpt", "fcfs", "edf"] = "srpt"
    ageing: Annotated[float, Field(gt=0)] = 0.5
    share_margin: Annotated[float, Field(ge=0, lt=1)] = 0.1
    align_ticks: Annotated[int, Field(ge=0)] = 8
    deadline_margin: Annotated[float, Field(ge=0)] = 0.1
    client_lead: Annotated[float, Field(ge=0)] = 1.0
    low_priority_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    replan: bool = True
    warm_up_s: Annotated[float, Field(ge=0)] = 2.0
    retry_lost: bool = False
    drift_share: Annotated[float, Field(ge=0, le=1)] = 0.0


class Blocks(Section):
    """What runs the block stack, and for which sizes.

    Attributes
    ----------
    engine : {"eager", "compile", "aot", "onnxruntime", "openvino", "tensorrt"}
        All but ``eager`` and ``compile`` run an artifact that ``lemica compile`` built.
    precision : {"dtype", "bfloat16", "int8"}
        That of ``dtype``, or blocks rounded to bfloat16, or matrices of 8-bit integers with the rest as it is.
    required : bool
        Whether the model must not load where its engine cannot serve; if not, the eager engine serves, and the log
        says why.
    artifacts : str
        Folder that holds the artifacts, relative to the folder of ``model.json`` or absolute.
    max_rows : int or None
        Rows of a forward, a request having one for each guidance branch; None for twice ``limits.max_active``. More
        run eagerly.
    max_text_tokens : int or None
        Tokens of a text; None for as many as the model takes. More run eagerly.
    cuda_graphs : bool
        Whether ``compile`` records the blocks as CUDA graphs while the model loads, one for each number of rows.
    """

    engine: EngineName = "eager"
    precision: Precision = "dtype"
    required: bool = True
    artifacts: str = "blocks"
    max_rows: PositiveInt | None = None
    max_text_tokens: PositiveInt | None = None
    cuda_graphs: bool = False

    @model_validator(mode="after")
    def _graphs(self) -> Self:
        if self.cuda_graphs and self.engine != "compile":
            raise ValueError(f"cuda_graphs takes the engine compile, and engine is {self.engine}: leave it out")
        return self


class Log(Section):
    """One line for every request that ended.

    Attributes
    ----------
    requests : {"all", "failures", "off"}
        Which requests: all, those that got no video, or none.
    format : {"json", "text"}
        A JSON object, or key=value pairs.
    """

    requests: Literal["all", "failures", "off"] = "all"
    format: Literal["json", "text"] = "json"
