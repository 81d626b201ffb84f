"""HunyuanVideo (arXiv 2412.03603): diffusers' HunyuanVideoPipeline cut into stem, block stack and head.

The guidance scale is an input of the transformer, so one branch runs. With ``true_cfg_scale`` above 1 the negative
prompt runs as well, and classifier-free guidance comes on top. Blocks of two streams are followed by blocks of one; the
head sees the video's stream only, so its residual, over both kinds of blocks, is all that a skipped step needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import HunyuanVideoPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from torch import Tensor

from lemica_backend.blocks.stack import BlockStack, Range
from lemica_backend.models.base import Stem, Text, guided, text_branches
from lemica_backend.models.hunyuan_video_stack import HunyuanVideoStack
from lemica_backend.models.pipeline_model import Options, PipelineModel, Shape, stack_texts, unpatch
from lemica_backend.types import Branch

MAX_TOKENS = 256  # HunyuanVideoPipeline.__call__


class HunyuanVideoOptions(Options):
    """What HunyuanVideoPipeline takes beside a request.

    Attributes
    ----------
    true_cfg_scale : float
        Weight of classifier-free guidance by the negative prompt; at most 1 turns it off.
    """

    true_cfg_scale: float = 1.0


class HunyuanVideoModel(PipelineModel):
    """One loaded HunyuanVideo; holds no state of any request."""

    family = "hunyuan_video"
    pipeline_class = HunyuanVideoPipeline
    options_class = HunyuanVideoOptions
    makes_schedule = True

    def _default_shape(self) -> Shape:
        return Shape(720, 1280, 129)

    def _grain(self) -> tuple[int, int]:
        pipeline = self._pipeline
        pixels = pipeline.vae_scale_factor_spatial * self._net.config.patch_size
        return math.lcm(16, pixels), pipeline.vae_scale_factor_temporal

    def _prepare(self) -> None:
        net = self._net.config
        if net.image_condition_type is not None:
            raise ValueError("the transformer continues an image (image_condition_type); only text to video is served")
        self._patch = (net.patch_size_t, net.patch_size, net.patch_size)
        latents = self.initial_noise(0)[None]
        self._grid = [cells // cell for cells, cell in zip(latents.shape[2:], self._patch, strict=True)]
        self._rope = self._net.rope(latents)

    def branches(self, guidance_scale: float) -> tuple[Branch, ...]:
        """Return both branches with ``true_cfg_scale``, whatever the guidance that the transformer is given."""
        return text_branches(self._options.true_cfg_scale)

    def encode_text(
        self, prompt: str, negative_prompt: str, branches: Sequence[Branch], guidance_scale: float = 1.0
    ) -> dict[Branch, Text]:
        """Encode as the pipeline does: states of 256 tokens with their mask, a pooled vector, and the guidance.

        Raises
        ------
        InvalidRequestError
            If a prompt has more tokens than the pipeline takes (it would cut it silently). The pooled vector is of
            the first 77 tokens alone, by design.
        """
        self._require_tokens(MAX_TOKENS, prompt=prompt, negative_prompt=negative_prompt)
        texts: dict[Branch, str] = {"cond": prompt, "uncond": negative_prompt}
        return {branch: self._encode(texts[branch], guidance_scale) for branch in branches}

    def _count_tokens(self, text: str) -> int:
        tokens = self._pipeline.tokenizer(DEFAULT_PROMPT_TEMPLATE["template"].format(text)).input_ids
        return len(tokens) - int(DEFAULT_PROMPT_TEMPLATE["crop_start"])

    def _encode(self, text: str, guidance_scale: float) -> Text:
        states, pooled, mask = self._pipeline.encode_prompt(text, device=self._device, max_sequence_length=MAX_TOKENS)
        guidance = torch.tensor(guidance_scale, dtype=self._dtype, device=self._device) * 1000.0
        return (*(each[0].to(self._dtype) for each in (states, pooled, mask)), guidance)

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, num_inference_steps + 1)[:-1], device=self._device)

    def stem(self, latents: Tensor, timesteps: Tensor, texts: Sequence[Text]) -> Stem:
        """Cut the video into patches, and embed timesteps, pooled texts and guidance together."""
        _, pooled, _, guidance = stack_texts(texts)
        timesteps = timesteps.to(self._dtype)  # as the pipeline rounds them; the first one, 1000, is exact
        embedding, _ = self._net.time_text_embed(timesteps, pooled, guidance)
        return Stem(self._net.x_embedder(latents.to(self._dtype)), (embedding, timesteps))

    def blocks(self, stem: Stem, texts: Sequence[Text]) -> Tensor:
        """Run the blocks of two streams, then those of one, with the padding of texts masked."""
        embedding, timesteps = stem.conditions
        states, _, mask, _ = stack_texts(texts)
        text = self._net.context_embedder(states, timesteps, mask)
        lengths = mask.sum(dim=1, dtype=torch.int)
        shown = torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]
        return self.stacks[0](stem.hidden, text, shown, embedding, *self._rope)

    def _make_stacks(self) -> Sequence[BlockStack]:
        return (HunyuanVideoStack(self._net, self._rope, Range(MAX_TOKENS, MAX_TOKENS), self._dtype),)

    def head(self, hidden: Tensor, stem: Stem) -> Tensor:
        """Modulate, project and put the patches together."""
        patches = self._net.proj_out(self._net.norm_out(hidden, stem.conditions[0]))
        return unpatch(patches, self._grid, self._patch)

    def guide(self, outputs: Tensor, guidance_scale: float, timestep: Tensor, num_inference_steps: int) -> Tensor:
        """Combine the branches by ``true_cfg_scale``."""
        return guided(outputs, self._options.true_cfg_scale)

    def _decode(self, latents: Tensor, seed: int) -> Tensor:
        vae = self._pipeline.vae
        video: Tensor = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        return video
