"""HunyuanVideo 1.5 (arXiv 2511.18870): diffusers' HunyuanVideo15Pipeline cut into stem, block stack and head.

The blocks carry two streams, the video's and the text's. The head sees the video's only, so its residual is all that a
skipped step needs. Guidance is the pipeline's guider's, at the request's scale.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import ClassifierFreeGuidance, HunyuanVideo15Pipeline
from diffusers.pipelines.hunyuan_video1_5.pipeline_hunyuan_video1_5 import format_text_input
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lemica_backend.blocks.stack import BlockStack, Range
from lemica_backend.models.base import Stem, Text
from lemica_backend.models.hunyuan_video_stack import HunyuanVideo15Stack
from lemica_backend.models.pipeline_model import PipelineModel, Shape, stack_texts, unpatch
from lemica_backend.types import Branch

_PLAIN = {"start": 0.0, "stop": 1.0, "enabled": True, "use_original_formulation": False}  # of the guider


class HunyuanVideo15Model(PipelineModel):
    """One loaded HunyuanVideo 1.5; holds no state of any request."""

    family = "hunyuan_video_15"
    pipeline_class = HunyuanVideo15Pipeline
    makes_schedule = True
    stem_sees_text = False

    def _default_shape(self) -> Shape:
        pipeline = self._pipeline
        width, height = pipeline.default_aspect_ratio
        size = pipeline.video_processor.calculate_default_height_width(height, width, pipeline.target_size)
        return Shape(size[0], size[1], 121)

    def _grain(self) -> tuple[int, int]:
        pipeline = self._pipeline
        return pipeline.vae_scale_factor_spatial * self._net.config.patch_size, pipeline.vae_scale_factor_temporal

    def _prepare(self) -> None:
        net = self._net.config
        if net.use_meanflow:
            raise ValueError("the transformer takes a second timestep (use_meanflow); that is not served")
        _require_plain(self._pipeline.guider)
        self._patch = (net.patch_size_t, net.patch_size, net.patch_size)
        latents = self.initial_noise(0)[None]
        self._grid = [cells // cell for cells, cell in zip(latents.shape[2:], self._patch, strict=True)]
        self._rope = self._net.rope(latents)

    def branches(self, guidance_scale: float) -> tuple[Branch, ...]:
        """Return the branches that the guider wants: any scale but just 1 is guidance to it."""
        return ("uncond", "cond") if self._guider(guidance_scale).num_conditions > 1 else ("cond",)

    def _guider(self, guidance_scale: float) -> Any:
        guider = copy.copy(self._pipeline.guider)
        guider.guidance_scale = guidance_scale
        return guider

    def _latents_channels(self) -> int:
        channels: int = self._pipeline.num_channels_latents
        return channels

    def _latents_dtype(self) -> torch.dtype:
        return self._dtype

    def encode_text(
        self, prompt: str, negative_prompt: str, branches: Sequence[Branch], guidance_scale: float = 1.0
    ) -> dict[Branch, Text]:
        """Encode as the pipeline does: states with their mask, and those of what the prompt quotes with theirs.

        Raises
        ------
        InvalidRequestError
            If a prompt has more tokens than the pipeline takes (it would cut it silently).
        """
        self._require_tokens(self._pipeline.tokenizer_max_length, prompt=prompt, negative_prompt=negative_prompt)
        texts: dict[Branch, str] = {"cond": prompt, "uncond": negative_prompt}
        return {branch: self._encode(texts[branch]) for branch in branches}

    def _count_tokens(self, text: str) -> int:
        pipeline = self._pipeline
        (chat,) = format_text_input([text], pipeline.system_message)
        tokens = pipeline.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True).input_ids
        return len(tokens) - int(pipeline.prompt_template_encode_start_idx)

    def _encode(self, text: str) -> Text:
        encoded = self._pipeline.encode_prompt(text, device=self._device, dtype=self._dtype)
        return tuple(each[0] for each in encoded)

    def _set_timesteps(self, scheduler: Any, num_inference_steps: int) -> None:
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, num_inference_steps + 1)[:-1], device=self._device)

    def stem(self, latents: Tensor, timesteps: Tensor, texts: Sequence[Text]) -> Stem:
        """Cut the video into patches, with an empty first frame and mask beside it, and embed the timesteps."""
        nothing = torch.zeros_like(latents), torch.zeros_like(latents[:, :1])
        timesteps = timesteps.to(latents.dtype)
        hidden = self._net.x_embedder(torch.cat([latents, *nothing], dim=1))
        return Stem(hidden, (self._net.time_embed(timesteps), timesteps))

    def blocks(self, stem: Stem, texts: Sequence[Text]) -> Tensor:
        """Run the blocks on both streams, and return the video's."""
        embedding, timesteps = stem.conditions
        text, shown = self._join(timesteps, texts)
        return self.stacks[0](stem.hidden, text, shown, embedding, *self._rope)

    def _make_stacks(self) -> Sequence[BlockStack]:
        most = self._pipeline.tokenizer_max_length + self._pipeline.tokenizer_2_max_length
        return (HunyuanVideo15Stack(self._net, self._rope, Range(1, most), self._dtype),)

    def _join(self, timesteps: Tensor, texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
        """Return what the prompt quotes and then the prompt, shape (R, longest, width), and its mask.

        The transformer itself puts the padding of both, and the image that there is not, behind them and masks all of
        it. Here only what the longest row needs is padded, which is the same for what is not masked.
        """
        states, mask, quoted, quoted_mask = stack_texts(texts)
        kinds = self._net.cond_type_embed.weight
        states = self._net.context_embedder(states, timesteps, mask) + kinds[0]
        quoted = self._net.context_embedder_2(quoted) + kinds[1]
        valid = zip(quoted, quoted_mask.bool(), states, mask.bool(), strict=True)
        rows = [torch.cat([quote[quotes], state[words]]) for quote, quotes, state, words in valid]
        padded = pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=padded.device)
        return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]

    def head(self, hidden: Tensor, stem: Stem) -> Tensor:
        """Modulate, project and put the patches together."""
        patches = self._net.proj_out(self._net.norm_out(hidden, stem.conditions[0]))
        return unpatch(patches, self._grid, self._patch)

    def guide(self, outputs: Tensor, guidance_scale: float, timestep: Tensor, num_inference_steps: int) -> Tensor:
        """Combine the branches as the pipeline's guider does."""
        if len(outputs) == 1:
            return outputs[0]
        uncond, cond = outputs.split(1)  # it takes means over all dimensions but the first
        output: Tensor = self._guider(guidance_scale).forward(cond, uncond).pred[0]
        return output

    def _decode(self, latents: Tensor, seed: int) -> Tensor:
        vae = self._pipeline.vae
        video: Tensor = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        return video


def _require_plain(guider: Any) -> None:
    if not isinstance(guider, ClassifierFreeGuidance):
        raise ValueError(f"the guider is {type(guider).__name__}; only ClassifierFreeGuidance is served")
    for name, wanted in _PLAIN.items():
        if guider.config[name] != wanted:
            raise ValueError(f"the guider's {name} is {guider.config[name]}; only {wanted} is served")
