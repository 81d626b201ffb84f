"""Open-Sora 1.2, cut into stem, block stack and head for the step cache.

Spatial and temporal blocks alternate. The residual is that of the whole stack, from the embedded patches to the final
layer, as in the caching of Open-Sora by others (arXiv 2411.19108).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lemica_backend.blocks.engine_stack import StackCall
from lemica_backend.config import Memory, Offload, Size
from lemica_backend.errors import InvalidRequestError, ModelLoadError
from lemica_backend.models.base import ModelInfo, Scheduler, Stem, guided, text_branches
from lemica_backend.models.offloading import offload_between_uses, require_room_elsewhere
from lemica_backend.models.open_sora.layers import Texts
from lemica_backend.models.open_sora.pipeline import OpenSoraPipeline
from lemica_backend.models.open_sora.settings import VideoSettings
from lemica_backend.models.open_sora.stack import OpenSoraStack
from lemica_backend.models.open_sora.text import TextConditioner
from lemica_backend.models.outline import Outline
from lemica_backend.models.pipeline_model import Shape, fixed_shape
from lemica_backend.models.weights_hash import hash_weights
from lemica_backend.types import Branch

_KEPT_PLAINLY = Memory()


class OpenSoraModel:
    """One loaded Open-Sora; holds no state of any request.

    Latents and sampling stay in float32; only transformer, text encoder and autoencoder compute in `dtype`.

    Parameters
    ----------
    folder : Path
        A folder that `OpenSoraPipeline.save_pretrained` wrote.
    dtype, device
        Where and in what precision the model computes.
    size, options
        None or what the folder says: the size is fixed there, and there are no options.
    memory : Memory
        Without quantisation.

    Raises
    ------
    ModelLoadError
        If `dtype` is float16, in which the autoencoder overflows, a package is missing, or there are options.
    ValueError
        If the size is another one.
    """

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
        if memory.quantization:
            raise ModelLoadError("model.json: quantization: family 'open_sora' takes none: leave it out")
        if dtype == torch.float16:
            raise ModelLoadError("dtype is float16, in which the autoencoder overflows: take bfloat16 or float32")
        self._take(OpenSoraPipeline.from_pretrained(folder, dtype=dtype), device, memory.offload)
        self._finish(hash_weights(folder), dtype, size or Size())
        if options:
            raise ModelLoadError(f"model.json, options: this family has none; got {', '.join(options)}")

    @classmethod
    def around(
        cls,
        pipeline: OpenSoraPipeline,
        *,
        dtype: torch.dtype,
        device: str,
        size: Size | None = None,
        weights_hash: str = "",
    ) -> Self:
        """Return the model of a pipeline that was made in memory and has no files to hash."""
        model = cls.__new__(cls)
        model._take(pipeline, device, _KEPT_PLAINLY.offload)
        model._finish(weights_hash, dtype, size or Size())
        return model

    def _take(self, pipeline: OpenSoraPipeline, device: str, offload: Offload) -> None:
        self._device = torch.device(device)
        self._net = pipeline.transformer.to(self._device)
        self._vae = pipeline.vae.to(self._device)
        self._scheduler, self._video = pipeline.scheduler, pipeline.video
        self._text = TextConditioner(
            pipeline.tokenizer,
            self._placed(pipeline.text_encoder, offload),
            self._video,
            max_tokens=self._net.config.model_max_length,
        )

    def _finish(self, weights_hash: str, dtype: torch.dtype, size: Size) -> None:
        self.info = self._make_info(weights_hash)
        self.stacks: list[StackCall] = [self._make_stack(dtype)]
        fixed_shape(Shape(self.info.height, self.info.width, self.info.num_frames), size)

    def _placed(self, encoder: Any, offload: Offload) -> Any:
        if not offload.text_encoders:
            return encoder.to(self._device)
        require_room_elsewhere(str(self._device))
        offload_between_uses(encoder, self._device)
        return encoder

    @classmethod
    def outline(
        cls, folder: Path, *, dtype: torch.dtype, size: Size | None = None, options: Mapping[str, object] | None = None
    ) -> Outline:
        """Return what can be known without the weights."""
        pipeline = OpenSoraPipeline.outline(folder)
        _, frames, rows, columns = latents = _latents_shape(pipeline.transformer, pipeline.vae, pipeline.video)
        patch, cell = pipeline.transformer.config.patch_size, pipeline.vae.spatial_factor
        shape = Shape(rows * cell, columns * cell, pipeline.video.num_frames)
        fixed_shape(shape, size or Size())
        return Outline(
            **shape._asdict(),
            parts={name: getattr(pipeline, name) for name in ("transformer", "vae", "text_encoder")},
            tokens=frames * -(-rows // patch) * -(-columns // patch),
            channels=pipeline.transformer.config.hidden_size,
            latents_shape=latents,
            defaults={"num_inference_steps": 30, "guidance_scale": 7.0},  # of the official sampling configuration
        )

    def _make_info(self, weights_hash: str) -> ModelInfo:
        video, cell = self._video, self._vae.spatial_factor
        latents = _latents_shape(self._net, self._vae, video)
        return ModelInfo(
            family="open_sora",
            max_steps=self._scheduler.config.num_train_timesteps,
            weights_hash=weights_hash,
            scheduler=type(self._scheduler).__name__,
            scheduler_config=self._describe_sampling(),
            num_frames=video.num_frames,
            height=latents[2] * cell,
            width=latents[3] * cell,
            latents_shape=latents,
            stem_sees_text=False,
        )

    def _describe_sampling(self) -> dict[str, Any]:
        """Return the scheduler's parameters, and the frame rate, on which trajectories depend as much."""
        config = {k: v for k, v in sorted(self._scheduler.config.items()) if not k.startswith("_")}
        return {**config, "fps": self._video.conditioning_fps}

    @property
    def autoencoder(self) -> Any:
        """The one of this project, which has no switches: it decodes in slices of frames already."""
        return self._vae

    @property
    def networks(self) -> tuple[Any, ...]:
        """The STDiT3."""
        return (self._net,)

    def branches(self, guidance_scale: float) -> tuple[Branch, ...]:
        """Return the branches of classifier-free guidance."""
        return text_branches(guidance_scale)

    def encode_text(
        self, prompt: str, negative_prompt: str, branches: Sequence[Branch], guidance_scale: float = 1.0
    ) -> dict[Branch, Tensor]:
        """Encode the prompt; without it, the learned null text of the same length conditions.

        Raises
        ------
        InvalidRequestError
            If the prompt has too many tokens, or there is a negative prompt.
        """
        if negative_prompt.strip():
            raise InvalidRequestError("negative_prompt: Open-Sora has a learned one and takes no other: leave it out")
        cond = self._text.encode(prompt)
        states = {"cond": cond, "uncond": self._net.null_text(len(cond))}
        # the projection sees one token at a time, so once a request is enough
        return {branch: self._net.y_embedder.y_proj(states[branch]) for branch in branches}

    def initial_noise(self, seed: int) -> Tensor:
        """Draw the noise on the CPU, so that a seed means the same on every device."""
        generator = torch.Generator("cpu").manual_seed(seed)
        noise = torch.randn((1, *self.info.latents_shape), generator=generator)
        return noise[0].to(self._device)

    def new_scheduler(self, num_inference_steps: int, seed: int = 0) -> Scheduler:
        """Copy the scheduler, which counts one request's steps."""
        scheduler = copy.deepcopy(self._scheduler)
        scheduler.set_timesteps(num_inference_steps, device=self._device)
        return cast(Scheduler, scheduler)

    def switches(self, timesteps: Tensor) -> frozenset[int]:
        """Return no steps: the same weights compute all of them."""
        return frozenset()

    def stem(self, latents: Tensor, timesteps: Tensor, texts: Sequence[Tensor] = ()) -> Stem:
        """Cut the frames into patches and embed the timesteps and the frame rate; texts are not looked at."""
        fps = torch.full_like(timesteps, self._video.conditioning_fps)
        timing = self._net.embed_times(timesteps, fps)
        hidden = self._net.embed_latents(latents, height=self._video.height, width=self._video.width)
        return Stem(hidden, (timing.modulation, timing.embedding))

    def blocks(self, stem: Stem, texts: Sequence[Tensor]) -> Tensor:
        """Run the spatial and temporal blocks; texts of different length are padded and masked."""
        states, shown = _pad(texts)
        return self.stacks[0](stem.hidden, states, shown, stem.conditions[0])

    def _make_stack(self, dtype: torch.dtype) -> OpenSoraStack:
        _, frames, rows, columns = self.info.latents_shape
        patch = self._net.config.patch_size
        return OpenSoraStack(self._net, frames, -(-rows // patch) * -(-columns // patch), dtype)

    def head(self, hidden: Tensor, stem: Stem) -> Tensor:
        """Predict the velocity from clip to noise, diffusers' sign; the variance channels are dropped."""
        channels, _, rows, columns = self.info.latents_shape
        output: Tensor = self._net.predict(hidden, stem.conditions[1], (rows, columns))
        return -output[:, :channels]

    def guide(self, outputs: Tensor, guidance_scale: float, timestep: Tensor, num_inference_steps: int) -> Tensor:
        """Combine the branches, at the same scale at every step."""
        return guided(outputs, guidance_scale)

    def decode(self, latents: Tensor, seed: int = 0) -> NDArray[np.uint8]:
        """Decode in the official chunks and round to uint8."""
        video = self._vae.decode(latents[None], self.info.num_frames)[0]  # (3, frames, height, width) in [-1, 1]
        pixels = (video.float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0)
        return cast("NDArray[np.uint8]", (pixels * 255).round().byte().cpu().numpy())


def _latents_shape(net: Any, vae: Any, video: VideoSettings) -> tuple[int, int, int, int]:
    """Return channels, frames, rows and columns of a video's latents."""
    rows, columns = video.height // vae.spatial_factor, video.width // vae.spatial_factor
    return net.config.in_channels, vae.latent_frames(video.num_frames), rows, columns


def _pad(texts: Sequence[Tensor]) -> Texts:
    """Stack texts (L, width) to (R, longest, width), with a mask (R, 1, 1, longest) where their lengths differ."""
    lengths = torch.tensor([len(text) for text in texts], device=texts[0].device)
    states = pad_sequence(list(texts), batch_first=True)
    shown = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
    return Texts(states, None if bool((lengths == lengths[0]).all()) else shown[:, None, None])
