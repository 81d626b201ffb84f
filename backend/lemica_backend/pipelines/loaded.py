"""A pipeline of diffusers that nothing is known of but its call: how it is loaded, called, and what comes out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray

from lemica_backend.config import ModelConfig
from lemica_backend.errors import InvalidRequestError
from lemica_backend.models.attention import use_attention_backend
from lemica_backend.models.autoencoders import cut_decoding
from lemica_backend.models.quantizing import quantizer_arguments
from lemica_backend.planned import PlannedRequest

_NEEDED = ("prompt", "num_inference_steps", "generator", "output_type")


@dataclass(frozen=True, eq=False)
class LoadedPipeline:
    """A pipeline and what every call of it gets.

    Attributes
    ----------
    pipeline : diffusers.DiffusionPipeline
    options : mapping
        Arguments that each call gets: the size, and ``options`` of ``model.json``.
    """

    pipeline: Any
    options: Mapping[str, Any]

    @property
    def takes(self) -> frozenset[str]:
        """Names of the call's arguments."""
        return frozenset(inspect.signature(self.pipeline.__call__).parameters)

    def call(self, planned: PlannedRequest) -> dict[str, Any]:
        """Return the arguments of a request's call.

        Raises
        ------
        InvalidRequestError
            If the pipeline does not take what the request asks for.
        """
        if planned.negative_prompt and "negative_prompt" not in self.takes:
            name = type(self.pipeline).__name__
            raise InvalidRequestError(f"negative_prompt: {name} takes none: leave it out")
        asked = {"negative_prompt": planned.negative_prompt or None, "guidance_scale": planned.guidance_scale}
        return {
            **self.options,
            **{name: value for name, value in asked.items() if name in self.takes and value is not None},
            "prompt": planned.prompt,
            "num_inference_steps": planned.num_inference_steps,
            "generator": torch.Generator("cpu").manual_seed(planned.seed),
            "output_type": "np",
        }


def load_pipeline(folder: Path, config: ModelConfig, device: str) -> LoadedPipeline:
    """Load a pipeline from a folder in the diffusers layout.

    Raises
    ------
    ValueError
        If its call lacks an argument that is needed here, or takes no such size or option.
    """
    quantizer = quantizer_arguments(folder, config.quantization)
    dtype = getattr(torch, config.dtype)
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=dtype, local_files_only=True, **quantizer)
    pipeline.set_progress_bar_config(disable=True)
    cut_decoding(getattr(pipeline, "vae", None), config.decode)
    sizes = {name: value for name, value in config.size.model_dump().items() if value is not None}
    loaded = LoadedPipeline(pipeline.to(device), sizes | config.options)
    if config.attention_backend:
        use_attention_backend([pipeline.transformer], config.attention_backend, device=device, dtype=dtype)
    for name in (*_NEEDED, *loaded.options):
        if name not in loaded.takes:
            allowed = ", ".join(sorted(loaded.takes - set(_NEEDED)))
            raise ValueError(f"the call of {type(pipeline).__name__} takes no {name!r}; it takes {allowed}")
    return loaded


def frames_of(output: Any) -> NDArray[np.uint8]:
    """Return what a call made, (F, height, width, 3); an image is a video of one frame.

    Raises
    ------
    ValueError
        If there are neither frames nor images of three channels in it.
    """
    found = getattr(output, "frames", None)
    images = np.asarray(getattr(output, "images", None) if found is None else found)
    frames = images[0] if images.ndim == 5 else images[:1]
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"{type(output).__name__} holds no frames or images (height, width, 3)")
    pixels: NDArray[np.uint8] = (frames * 255).round().clip(0, 255).astype(np.uint8)
    return pixels
