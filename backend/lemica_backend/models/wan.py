"""Wan 2.1 and 2.2 (arXiv 2503.20314): diffusers' WanPipeline cut into stem, block stack and head.

Wan 2.2 has two transformers: the steps above ``boundary_ratio`` run on the first, the others on the second. What a
transformer's blocks add says nothing about the other's, so nothing is reused across the switch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from diffusers import WanPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor

from lemica_backend.blocks.stack import BlockStack, Range
from lemica_backend.models.base import Stem, Text, guided
from lemica_backend.models.pipeline_model import Options, PipelineModel, Shape, stack_texts, unpatch
from lemica_backend.models.wan_stack import MAX_TOKENS, WanStack
from lemica_backend.types import Branch

Rows = list[int] | slice


class WanOptions(Options):
    """What WanPipeline takes beside a request.

    Attributes
    ----------
    guidance_scale_2 : float or None
        Guidance of the second transformer's steps; None takes the request's.
    """

    guidance_scale_2: float | None = None


class WanModel(PipelineModel):
    """One loaded Wan; holds no state of any request."""

    family = "wan"
    pipeline_class = WanPipeline
    options_class = WanOptions
    stem_sees_text = False

    def _dtypes(self, dtype: torch.dtype) -> Any:
        return {"default": dtype, "vae": torch.float32}  # as the pipeline's authors load it

    def _default_shape(self) -> Shape:
        return Shape(480, 832, 81)

    def _grain(self) -> tuple[int, int]:
        pipeline = self._pipeline
        return pipeline.vae_scale_factor_spatial * self._net.config.patch_size[1], pipeline.vae_scale_factor_temporal

    def _prepare(self) -> None:
        ratio, scheduler = self._pipeline.config.boundary_ratio, self._pipeline.scheduler
        self._boundary = -torch.inf if ratio is None else ratio * scheduler.config.num_train_timesteps
        self._nets = (self._net, self._pipeline.transformer_2)
        if (ratio is None) == (self._nets[1] is not None):
            raise ValueError("model_index.json: give boundary_ratio and transformer_2, or neither")
        if ratio is None and self._options.guidance_scale_2 is not None:
            raise ValueError("model.json, options.guidance_scale_2: there is no second transformer to guide")
        self._require_channels()
        latents = self._draw(torch.Generator())[None]
        self._patch = self._net.config.patch_size
        self._grid = [cells // cell for cells, cell in zip(latents.shape[2:], self._patch, strict=True)]
        self._rope = self._net.rope(latents)

    def _require_channels(self) -> None:
        """Refuse a transformer that another pipeline is for."""
        wanted, kind = self._seen_channels(), self.pipeline_class.__name__
        for got in {net.config.in_channels for net in self._nets if net is not None} - {wanted}:
            raise ValueError(
                f"the transformer takes {got} channels, and {kind} gives it {wanted}: take its own pipeline"
            )

    def _seen_channels(self) -> int:
        channels: int = self._pipeline.vae.config.z_dim
        return channels

    def encode_text(
        self, prompt: str, negative_prompt: str, branches: Sequence[Branch], guidance_scale: float = 1.0
    ) -> dict[Branch, Text]:
        """Encode as the pipeline does: padded with zeros to 512 tokens, which the blocks do not mask.

        Raises
        ------
        InvalidRequestError
            If a prompt has more tokens than the model was made for (the pipeline would cut it silently).
        """
        self._require_tokens(MAX_TOKENS, prompt=prompt, negative_prompt=negative_prompt)
        cond, uncond = self._pipeline.encode_prompt(
            prompt, negative_prompt, "uncond" in branches, max_sequence_length=MAX_TOKENS, device=self._device
        )
        states = {"cond": cond, "uncond": uncond}
        return {branch: (states[branch][0].to(self._dtype),) for branch in branches}

    def _count_tokens(self, text: str) -> int:
        return super()._count_tokens(prompt_clean(text))

    def switches(self, timesteps: Tensor) -> frozenset[int]:
        """Return the first step of the second transformer."""
        second = (timesteps < self._boundary).tolist()
        return frozenset(step for step in range(1, len(second)) if second[step] != second[step - 1])

    def stem(self, latents: Tensor, timesteps: Tensor, texts: Sequence[Text]) -> Stem:
        """Cut the video into patches and embed the timesteps.

        Wan 2.2 5B is given one timestep a token (``expand_timesteps``). Without a first frame to keep they are all
        the same, which one timestep a row is, too.
        """
        seen = self._seen(latents, texts).to(self._dtype)

        def run(net: Any, rows: Rows) -> tuple[Tensor, ...]:
            hidden = net.patch_embedding(seen[rows]).flatten(2).transpose(1, 2)
            no_text = hidden.new_empty(len(hidden), 0, net.config.text_dim)
            embedding, modulation = self._embed_times(net, timesteps[rows], no_text)
            return hidden, embedding, modulation.unflatten(-1, (6, -1)), timesteps[rows]

        hidden, *conditions = self._with_each_net(timesteps, run)
        return Stem(hidden, tuple(conditions))

    def _seen(self, latents: Tensor, texts: Sequence[Text]) -> Tensor:
        """Return what is cut into patches."""
        return latents

    def _embed_times(self, net: Any, timesteps: Tensor, no_text: Tensor) -> tuple[Tensor, Tensor]:
        embedding, modulation, *_ = net.condition_embedder(timesteps, no_text)
        return embedding, modulation

    def blocks(self, stem: Stem, texts: Sequence[Text]) -> Tensor:
        """Run the blocks; texts have one length."""
        _, modulation, timesteps = stem.conditions
        states = self._states(texts)

        def run(net: Any, rows: Rows) -> tuple[Tensor]:
            stack = self.stacks[self._nets.index(net)]
            text, *image = (each[rows] for each in states)
            return (stack(stem.hidden[rows], text, modulation[rows], *self._rope, *image),)

        return self._with_each_net(timesteps, run)[0]

    def _states(self, texts: Sequence[Text]) -> tuple[Tensor, ...]:
        """Return what the blocks attend to beside the video."""
        return stack_texts(texts)

    def _make_stacks(self) -> Sequence[BlockStack]:
        text = Range(MAX_TOKENS, MAX_TOKENS)
        return [WanStack(net, self._rope, text, self._dtype) for net in self._nets if net is not None]

    def head(self, hidden: Tensor, stem: Stem) -> Tensor:
        """Modulate, project and put the patches together."""
        embedding, _, timesteps = stem.conditions

        def run(net: Any, rows: Rows) -> tuple[Tensor]:
            shift, scale = (net.scale_shift_table + embedding[rows].unsqueeze(-2)).unbind(dim=-2)
            if shift.ndim == 2:  # one for all tokens of a row
                shift, scale = shift.unsqueeze(1), scale.unsqueeze(1)
            normed = (net.norm_out(hidden[rows].float()) * (1 + scale) + shift).type_as(hidden)
            return (net.proj_out(normed),)

        return unpatch(self._with_each_net(timesteps, run)[0], self._grid, self._patch, channels_last=True)

    def guide(self, outputs: Tensor, guidance_scale: float, timestep: Tensor, num_inference_steps: int) -> Tensor:
        """Combine the branches, at a scale of its own where the second transformer runs."""
        second = self._options.guidance_scale_2
        return guided(outputs, guidance_scale if second is None or timestep >= self._boundary else second)

    def _decode(self, latents: Tensor, seed: int) -> Tensor:
        vae = self._pipeline.vae
        latents = latents.to(vae.dtype)
        statistics = vae.config.latents_mean, vae.config.latents_std
        mean, std = (torch.tensor(each).view(1, -1, 1, 1, 1).to(latents) for each in statistics)
        video: Tensor = vae.decode(latents / (1.0 / std) + mean, return_dict=False)[0]
        return video

    def _with_each_net(self, timesteps: Tensor, run: Callable[[Any, Rows], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Run each transformer on its own rows, and put what it returns back in their order."""
        second = (timesteps < self._boundary).tolist()
        if len(set(second)) == 1:
            return run(self._nets[second[0]], slice(None))
        rows = [[row for row, is_second in enumerate(second) if is_second == wanted] for wanted in (False, True)]
        parts = [run(net, its) for net, its in zip(self._nets, rows, strict=True)]
        return tuple(_interleave(rows, each) for each in zip(*parts, strict=True))


def _interleave(rows: Sequence[Iterable[int]], parts: Sequence[Tensor]) -> Tensor:
    """Return the rows of all parts in the order of the numbers in `rows`."""
    order = torch.tensor(list(chain.from_iterable(rows)))
    return torch.cat(list(parts))[order.argsort()]
