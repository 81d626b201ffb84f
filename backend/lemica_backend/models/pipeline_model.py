"""What the families have in common whose weights are a pipeline of diffusers."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from lemica_backend.blocks.engine_stack import StackCall
from lemica_backend.blocks.stack import BlockStack
from lemica_backend.config import Memory, Size
from lemica_backend.errors import InvalidRequestError
from lemica_backend.models.base import BEGINS_WITH, ModelInfo, Scheduler, Shown, Text, guided, text_branches
from lemica_backend.models.offloading import place
from lemica_backend.models.outline import Outline, call_defaults, outline_parts
from lemica_backend.models.quantizing import quantizer_arguments, stated_hash
from lemica_backend.models.schedulers import SCHEDULERS, describe_scheduler
from lemica_backend.models.weights_hash import hash_weights
from lemica_backend.types import Branch, Image

_KEPT_PLAINLY = Memory()


class Options(BaseModel):
    """What a family's pipeline takes beside a request; a family adds its own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Shape(NamedTuple):
    """Of a video, in pixels and frames."""

    height: int
    width: int
    num_frames: int


class PipelineModel(ABC):
    """One loaded pipeline; holds no state of any request.

    Parameters
    ----------
    folder : Path
        In the diffusers layout.
    dtype, device
        Where and in what precision the model computes.
    size : Size
        Of every video; what it leaves out is the pipeline's default.
    options : mapping
        Fields of the family's `options_class`.
    memory : Memory
        How the weights are kept.

    Attributes
    ----------
    stacks : list of BlockStack or EngineStack
        What `blocks` calls, one for each transformer; a block engine takes the places.

    Raises
    ------
    ValueError
        If the weights, the size or an option are not what the family serves; the message says what is allowed.
    """

    family: ClassVar[str]
    pipeline_class: ClassVar[Any]
    options_class: ClassVar[type[Options]] = Options
    guides_in_float32: ClassVar[bool] = False
    makes_schedule: ClassVar[bool] = False
    takes_image: ClassVar[bool] = False
    stem_sees_text: ClassVar[bool] = True
    own_schedulers: ClassVar[tuple[str, ...]] = ()  # beside those that any model may be given
    _grid: Sequence[int]  # patches of one row, which `_prepare` counts

    def __init__(
        self,
        folder: Path,
        *,
        dtype: torch.dtype,
        device: str,
        size: Size | None = None,
        options: Mapping[str, object] | None = None,
        memory: Memory = _KEPT_PLAINLY,
    ) -> None:
        self._options: Any = _read_options(self.options_class, options or {})
        others = self._other_parts(folder, dtype) | quantizer_arguments(folder, memory.quantization)
        self._pipeline = self.pipeline_class.from_pretrained(
            folder, dtype=self._dtypes(dtype), local_files_only=True, **others
        )
        place(self._pipeline, device, memory.offload)
        self._fit(dtype, device, size or Size())
        self._finish(stated_hash(hash_weights(folder), memory.quantization))

    @classmethod
    def around(
        cls, pipeline: Any, *, dtype: torch.dtype, device: str, size: Size | None = None, weights_hash: str = ""
    ) -> Self:
        """Return the model of a pipeline that was made in memory, is on the device and has no files to hash."""
        model = cls.__new__(cls)
        model._options, model._pipeline = cls.options_class(), pipeline
        model._fit(dtype, device, size or Size())
        model._finish(weights_hash)
        return model

    def _finish(self, weights_hash: str) -> None:
        self.stacks: list[StackCall] = list(self._make_stacks())
        self.info = self._make_info(weights_hash)

    @classmethod
    def outline(
        cls, folder: Path, *, dtype: torch.dtype, size: Size | None = None, options: Mapping[str, object] | None = None
    ) -> Outline:
        """Return what can be known without the weights; raises as loading does."""
        model = cls.__new__(cls)
        model._options = _read_options(cls.options_class, options or {})
        model._pipeline = cls.pipeline_class(**outline_parts(folder) | model._other_parts(folder, dtype))
        with torch.device("meta"):
            model._fit(dtype, "meta", size or Size())
        parts = {name: part for name, part in model._pipeline.components.items() if isinstance(part, nn.Module)}
        net, dtypes = model._net.config, model._dtypes(dtype)
        return Outline(
            **model.shape._asdict(),
            parts=parts,
            tokens=math.prod(model._grid),
            channels=net.num_attention_heads * net.attention_head_dim,
            latents_shape=tuple(model.initial_noise(0).shape),
            defaults=call_defaults(cls.pipeline_class, getattr(model._pipeline, "guider", None)),
            dtypes=dtypes if isinstance(dtypes, dict) else {},
            takes_image=cls.takes_image,
            branches=model.branches,
        )

    @property
    def autoencoder(self) -> Any:
        """The pipeline's own."""
        return self._pipeline.vae

    @property
    def networks(self) -> tuple[Any, ...]:
        """The pipeline's transformers."""
        found = (getattr(self._pipeline, name, None) for name in ("transformer", "transformer_2"))
        return tuple(network for network in found if network is not None)

    def _fit(self, dtype: torch.dtype, device: str, size: Size) -> None:
        """Take the size, and make what depends on it."""
        self._net = self._pipeline.transformer
        self._device, self._dtype = torch.device(device), dtype
        self._require_sampler(self._pipeline.scheduler)
        self.shape = self._choose_shape(size)
        self._prepare()

    def _dtypes(self, dtype: torch.dtype) -> Any:
        """Return the precision of the pipeline's parts, as diffusers takes it."""
        return dtype

    def _other_parts(self, folder: Path, dtype: torch.dtype) -> dict[str, Any]:
        """Return parts that take the place of those that ``model_index.json`` names."""
        return {}

    def _require_sampler(self, scheduler: Any) -> None:
        """Refuse samplers that draw noise without the request's seed, or run the model more than once a step."""
        name, served = type(scheduler).__name__, (*self.own_schedulers, *SCHEDULERS)
        if name not in served:
            raise ValueError(f"the scheduler is {name}; served are {', '.join(served)}")
        if scheduler.config.get("stochastic_sampling"):
            raise ValueError("the scheduler's stochastic_sampling draws noise that no seed decides; it is not served")
        if str(scheduler.config.get("algorithm_type")).startswith("sde"):
            raise ValueError("the scheduler's algorithm_type draws noise that no seed decides; use dpmsolver++")

    @abstractmethod
    def _default_shape(self) -> Shape:
        """Return the pipeline's own size."""

    def _grain(self) -> tuple[int, int]:
        """Return what height and width must be multiples of, and what num_frames must be one more than multiples of."""
        return 1, 1

    def _prepare(self) -> None:  # noqa: B027 - a family may have nothing to make
        """Make what depends on nothing but the size, and refuse what the family cannot serve."""

    @abstractmethod
    def _make_stacks(self) -> Sequence[BlockStack]:
        """Return the block stacks, one for each transformer."""

    def _choose_shape(self, size: Size) -> Shape:
        """Return the shape of every video."""
        default = self._default_shape()._asdict()
        shape = Shape(**(default | {name: value for name, value in size if value is not None}))
        pixels, frames = self._grain()
        for name, value, rest, grain in (
            ("height", shape.height, shape.height % pixels, f"multiples of {pixels}"),
            ("width", shape.width, shape.width % pixels, f"multiples of {pixels}"),
            ("num_frames", shape.num_frames, (shape.num_frames - 1) % frames, f"1 more than multiples of {frames}"),
        ):
            if rest:
                raise ValueError(f"model.json, size.{name}: got {value}; this model makes {grain}")
        return shape

    def _make_info(self, weights_hash: str) -> ModelInfo:
        scheduler = self._pipeline.scheduler
        return ModelInfo(
            family=self.family,
            max_steps=scheduler.config.num_train_timesteps,
            weights_hash=weights_hash,
            scheduler=type(scheduler).__name__,
            scheduler_config=describe_scheduler(scheduler) | self._stated_options(),
            latents_shape=tuple(self.initial_noise(0).shape),
            makes_schedule=self.makes_schedule,
            takes_image=self.takes_image,
            stem_sees_text=self.stem_sees_text,
            **self.shape._asdict(),
        )

    def _stated_options(self) -> dict[str, Any]:
        """Return what a plan depends on beside weights and scheduler; Wan 2.2 5B has one set of weights for both."""
        stated: dict[str, Any] = self._options.model_dump(exclude_defaults=True)
        return stated | ({BEGINS_WITH: "image"} if self.takes_image else {})

    def show(self, texts: dict[Branch, Text], image: Image, seed: int) -> Shown:
        """Encode the image; no request for a model of text alone gets here with one."""
        raise NotImplementedError(f"{self.family} takes no image")

    def branches(self, guidance_scale: float) -> tuple[Branch, ...]:
        """Return the branches of classifier-free guidance."""
        return text_branches(guidance_scale)

    def _require_tokens(self, limit: int, **texts: str) -> None:
        """Refuse texts that the pipeline would cut silently."""
        for name, text in texts.items():
            tokens = self._count_tokens(text)
            if tokens > limit:
                raise InvalidRequestError(f"{name} has {tokens} tokens; at most {limit} are allowed: shorten it")

    def _count_tokens(self, text: str) -> int:
        return len(self._pipeline.tokenizer(text).input_ids)

    def initial_noise(self, seed: int) -> Tensor:
        """Draw as the pipeline does, on the CPU, so that a seed means the same on every device."""
        return self._draw(torch.Generator("cpu").manual_seed(seed))

    def _draw(self, generator: torch.Generator) -> Tensor:
        latents: Tensor = self._pipeline.prepare_latents(
            batch_size=1,
            num_channels_latents=self._latents_channels(),
            dtype=self._latents_dtype(),
            device=self._device,
            generator=generator,
            **self._drawn_shape()._asdict(),
        )
        return latents[0]

    def _latents_channels(self) -> int:
        channels: int = self._net.config.in_channels
        return channels

    def _latents_dtype(self) -> torch.dtype:
        return torch.float32

    def _drawn_shape(self) -> Shape:
        """Return the shape whose noise is drawn."""
        return self.shape

    def new_scheduler(self, num_inference_steps: int, seed: int = 0) -> Scheduler:
        """Copy the pipeline's scheduler; diffusers schedulers keep one request's state."""
        return cast(Scheduler, self._copy_scheduler(num_inference_steps))

    def _copy_scheduler(self, num_inference_steps: int) -> Any:
        scheduler = copy.deepcopy(self._pipeline.scheduler)
        self._set_timesteps(scheduler, num_inference_steps)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        return scheduler

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        scheduler.set_timesteps(num_inference_steps, device=self._device)

    def switches(self, timesteps: Tensor) -> frozenset[int]:
        """Return no steps: the same weights compute all of them."""
        return frozenset()

    def guide(self, outputs: Tensor, guidance_scale: float, timestep: Tensor, num_inference_steps: int) -> Tensor:
        """Combine the branches, at the same scale at every step."""
        return guided(outputs.float() if self.guides_in_float32 else outputs, guidance_scale)

    @torch.inference_mode()
    def decode(self, latents: Tensor, seed: int = 0) -> NDArray[np.uint8]:
        """Decode in the pipeline's own slices and round to uint8."""
        video = self._decode(latents[None], seed)
        pixels = self._pipeline.video_processor.postprocess_video(video, output_type="np")[0]
        return cast("NDArray[np.uint8]", (pixels * 255).round().astype(np.uint8))

    @abstractmethod
    def _decode(self, latents: Tensor, seed: int) -> Tensor:
        """Return pixels in [-1, 1], shape (1, 3, F, H, W), from latents of one row."""


def fixed_shape(shape: Shape, size: Size) -> Shape:
    """Return the shape of a model that makes one only; raises ValueError if another one is asked for."""
    for name, value in size:
        if value not in (None, getattr(shape, name)):
            raise ValueError(f"model.json, size.{name}: got {value}; the weights make {getattr(shape, name)} only")
    return shape


def stack_texts(texts: Sequence[Text]) -> tuple[Tensor, ...]:
    """Stack the rows of texts that the pipeline pads to one length."""
    return tuple(torch.stack(parts) for parts in zip(*texts, strict=True))


def unpatch(patches: Tensor, grid: Sequence[int], patch: Sequence[int], *, channels_last: bool = False) -> Tensor:
    """Put patches together.

    Parameters
    ----------
    patches : Tensor, shape (R, F * H * W, C * pt * ph * pw)
    grid : sequence of int
        F, H and W, in patches.
    patch : sequence of int
        pt, ph and pw.
    channels_last : bool
        Whether a patch holds its pixels before its channels.

    Returns
    -------
    Tensor, shape (R, C, F * pt, H * ph, W * pw)
    """
    order = (*patch, -1) if channels_last else (-1, *patch)
    cubes = patches.reshape(len(patches), *grid, *order)
    cubes = cubes.movedim(-1, 4) if channels_last else cubes
    return cubes.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(2, 3)


def _read_options(kind: type[Options], options: Mapping[str, object]) -> Options:
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        wrong = "; ".join(f"options.{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        allowed = ", ".join(kind.model_fields) or "none"
        raise ValueError(f"model.json, {wrong} (allowed options: {allowed})") from error
