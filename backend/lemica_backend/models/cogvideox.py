"""CogVideoX 2b, 5b and 1.5 (arXiv 2408.06072): diffusers' CogVideoXPipeline cut into stem, block stack and head.

The blocks carry two streams, the video's and the text's. The head sees the video's only, so its residual is all that a
skipped step needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import CogVideoXDPMScheduler, CogVideoXPipeline
from torch import Tensor

from lemica_backend.blocks.stack import BlockStack
from lemica_backend.models.base import Scheduler, Stem, Text
from lemica_backend.models.cogvideox_stack import CogVideoXStack
from lemica_backend.models.pipeline_model import Options, PipelineModel, Shape, stack_texts, unpatch
from lemica_backend.types import Branch

_OFFSET = 2.0  # CogVideoXImageToVideoPipeline.__call__


class CogVideoXOptions(Options):
    """What CogVideoXPipeline takes beside a request.

    Attributes
    ----------
    use_dynamic_cfg : bool
        Whether the guidance grows along the steps, as the authors of the 5b model advise.
    """

    use_dynamic_cfg: bool = False


class CogVideoXModel(PipelineModel):
    """One loaded CogVideoX; holds no state of any request. Latents have the shape (F, C, h, w)."""

    family = "cogvideox"
    pipeline_class = CogVideoXPipeline
    options_class = CogVideoXOptions
    own_schedulers = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
    guides_in_float32 = True

    def _default_shape(self) -> Shape:
        net, cell = self._net.config, self._pipeline.vae_scale_factor_spatial
        return Shape(net.sample_height * cell, net.sample_width * cell, net.sample_frames)

    def _grain(self) -> tuple[int, int]:
        pipeline = self._pipeline
        return pipeline.vae_scale_factor_spatial * self._net.config.patch_size, pipeline.vae_scale_factor_temporal

    def _prepare(self) -> None:
        self._require_task()
        net = self._net.config
        learned = self._default_shape()
        if net.use_learned_positional_embeddings and self.shape[:2] != learned[:2]:
            size = f"{learned.width} x {learned.height}"
            raise ValueError(f"model.json, size: the transformer's positions are learned, for {size} (width x height)")
        self._patch = (net.patch_size_t or 1, net.patch_size, net.patch_size)
        frames, _, height, width = self.initial_noise(0).shape
        self._grid = [cells // cell for cells, cell in zip((frames, height, width), self._patch, strict=True)]
        self._rope = None
        if net.use_rotary_positional_embeddings:
            self._rope = self._pipeline._prepare_rotary_positional_embeddings(
                self.shape.height, self.shape.width, frames, self._device
            )

    def _require_task(self) -> None:
        """Refuse a transformer that another pipeline is for."""
        if self._net.config.ofs_embed_dim is not None:
            raise ValueError("the transformer continues an image (ofs_embed_dim): its pipeline is another one")

    @property
    def _added_frames(self) -> int:
        """Latent frames that CogVideoX 1.5 puts before the video to fill its patches, and drops again."""
        frames = (self.shape.num_frames - 1) // self._pipeline.vae_scale_factor_temporal + 1
        return -int(frames) % int(self._net.config.patch_size_t or 1)

    def _drawn_shape(self) -> Shape:
        more = self._added_frames * self._pipeline.vae_scale_factor_temporal
        return self.shape._replace(num_frames=self.shape.num_frames + more)

    def _draw(self, generator: torch.Generator) -> Tensor:
        return super()._draw(generator) / float(self._pipeline.scheduler.init_noise_sigma)  # comes in again later

    def _latents_dtype(self) -> torch.dtype:
        return self._dtype

    def encode_text(
        self, prompt: str, negative_prompt: str, branches: Sequence[Branch], guidance_scale: float = 1.0
    ) -> dict[Branch, Text]:
        """Encode as the pipeline does: padded to the model's length, which the blocks do not mask.

        Raises
        ------
        InvalidRequestError
            If a prompt has more tokens than the model was made for (the pipeline would cut it silently).
        """
        limit = self._net.config.max_text_seq_length
        self._require_tokens(limit, prompt=prompt, negative_prompt=negative_prompt)
        cond, uncond = self._pipeline.encode_prompt(
            prompt, negative_prompt, "uncond" in branches, max_sequence_length=limit, device=self._device
        )
        states = {"cond": cond, "uncond": uncond}
        return {branch: (states[branch][0],) for branch in branches}

    def new_scheduler(self, num_inference_steps: int, seed: int = 0) -> Scheduler:
        """Copy the pipeline's scheduler; the DPM one goes on with the seed's noise where the latents ended."""
        scheduler = self._copy_scheduler(num_inference_steps)
        if not isinstance(scheduler, CogVideoXDPMScheduler):
            copied: Scheduler = scheduler
            return copied
        generator = torch.Generator("cpu").manual_seed(seed)
        self._draw(generator)
        return DpmSteps(scheduler, generator)

    def stem(self, latents: Tensor, timesteps: Tensor, texts: Sequence[Text]) -> Stem:
        """Cut the frames into patches, and embed text and timesteps."""
        states, *given = stack_texts(texts)
        both = self._net.patch_embed(states, self._seen(latents, given))
        text, hidden = both.split([states.shape[1], both.shape[1] - states.shape[1]], dim=1)
        embedding = self._net.time_embedding(self._net.time_proj(timesteps).to(latents.dtype))
        if self._net.ofs_embedding is not None:
            offset = self._net.ofs_proj(latents.new_full((1,), _OFFSET))
            embedding = embedding + self._net.ofs_embedding(offset.to(latents.dtype))
        return Stem(hidden, (embedding, text))

    def _seen(self, latents: Tensor, given: Sequence[Tensor]) -> Tensor:
        """Return what is cut into patches."""
        return latents

    def blocks(self, stem: Stem, texts: Sequence[Text]) -> Tensor:
        """Run the blocks on both streams, and return the video's."""
        embedding, text = stem.conditions
        return self.stacks[0](stem.hidden, text, embedding, *(self._rope or ()))

    def _make_stacks(self) -> Sequence[BlockStack]:
        return (CogVideoXStack(self._net, self._rope, math.prod(self._grid), self._dtype),)

    def head(self, hidden: Tensor, stem: Stem) -> Tensor:
        """Modulate, project and put the patches together."""
        normed = self._net.norm_out(self._net.norm_final(hidden), temb=stem.conditions[0])
        return unpatch(self._net.proj_out(normed), self._grid, self._patch).transpose(1, 2)

    def guide(self, outputs: Tensor, guidance_scale: float, timestep: Tensor, num_inference_steps: int) -> Tensor:
        """Combine the branches; with ``use_dynamic_cfg`` at the scale that the pipeline makes of the timestep."""
        if self._options.use_dynamic_cfg:
            gone = (num_inference_steps - timestep.item()) / num_inference_steps
            guidance_scale = 1 + guidance_scale * (1 - math.cos(math.pi * gone**5.0)) / 2
        return super().guide(outputs, guidance_scale, timestep, num_inference_steps)

    def _decode(self, latents: Tensor, seed: int) -> Tensor:
        video: Tensor = self._pipeline.decode_latents(latents[:, self._added_frames :])
        return video


class DpmSteps:
    """One request's CogVideoXDPMScheduler, with what its pipeline keeps for it between steps.

    Parameters
    ----------
    scheduler : CogVideoXDPMScheduler
        After ``set_timesteps``.
    generator : torch.Generator
        Of the noise that it adds.
    """

    def __init__(self, scheduler: Any, generator: torch.Generator) -> None:
        self._scheduler, self._generator = scheduler, generator
        self.config: Any = scheduler.config
        self.timesteps: Tensor = scheduler.timesteps
        self.alphas_cumprod: Tensor = scheduler.alphas_cumprod
        self._last: tuple[Tensor | None, Tensor | None] = None, None  # the predicted video, and its timestep

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *, return_dict: bool) -> tuple[Tensor, ...]:
        """Return the latents of the next step."""
        predicted, at = self._last
        latents, now = self._scheduler.step(
            model_output, predicted, timestep, at, sample, generator=self._generator, return_dict=False
        )
        self._last = now, timestep
        return (latents,)
