"""Batches of encoded clips, or of single frames, with their captions."""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from shapes.pool import Pool
from shapes.render import FRAMES
from shapes.scene import paraphrase, split_scenes

DROP_CAPTION = 0.1  # share of captions replaced by the empty prompt, for guidance
MIN_TOKENS = 24  # captions are padded to at least this, so that the compiled blocks see one shape


class Batch(NamedTuple):
    """Latents and the mean latents of all clips with that caption, both (B, 4, F, 20, 20), F = 16 or 1.

    Token ids and mask are (B, L); the bias of cross-attention is (B * F, 1, L).
    """

    latents: Tensor
    means: Tensor
    ids: Tensor
    mask: Tensor
    bias: Tensor


class Clips:
    """Draws batches from a pool, with paraphrased captions.

    Parameters
    ----------
    pool : Pool
    tokenizer : PreTrainedTokenizerFast
    seed : int
        Of the picks, paraphrases and dropped captions.
    """

    def __init__(self, pool: Pool, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> None:
        self._pool = pool
        self._tokenizer = tokenizer
        self._rng = random.Random(seed)
        self._scenes = split_scenes()[0]
        self._means = _scene_means(pool, len(self._scenes))
        self._anything = self._means.mean(0)  # what the empty prompt says

    def draw(self, size: int, *, as_images: bool) -> Batch:
        """Return `size` clips or, at the same cost, `FRAMES` times as many single frames of different clips.

        Frames of one clip resemble each other, so single frames teach to draw many times faster.
        """
        picks = self._rng.choices(range(len(self._pool.scenes)), k=size * FRAMES if as_images else size)
        captions = [paraphrase(self._scenes[self._pool.scenes[pick]], self._rng) for pick in picks]
        dropped = [self._rng.random() < DROP_CAPTION for _ in picks]
        means = self._means[self._pool.scenes[picks]]
        means[torch.tensor(dropped)] = self._anything
        videos = (self._pool.latents[picks].float(), means)
        latents, means = _frames(self._rng, *videos) if as_images else videos
        return tokenise(latents, means, captions, dropped, self._tokenizer)


def _scene_means(pool: Pool, scenes: int) -> Tensor:
    """Return the mean of each scene's clips, shape (scenes, 4, 16, 20, 20)."""
    sums = torch.zeros(scenes, *pool.latents.shape[1:]).index_add_(0, pool.scenes, pool.latents.float())
    return sums / pool.scenes.bincount(minlength=scenes)[:, None, None, None, None]


def _frames(rng: random.Random, latents: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Return one random frame of each clip, the same one of both, shapes (B, 4, 1, 20, 20)."""
    rows = torch.arange(len(latents))
    frames = [rng.randrange(FRAMES) for _ in rows]
    return latents[rows, :, frames].unsqueeze(2), means[rows, :, frames].unsqueeze(2)


def tokenise(
    latents: Tensor, means: Tensor, captions: list[str], dropped: list[bool], tokenizer: PreTrainedTokenizerFast
) -> Batch:
    """Make a batch; a dropped caption keeps its length, because LattePipeline crops the negative prompt to it."""
    longest = max(len(ids) for ids in tokenizer(captions).input_ids)
    pad = {"padding": "max_length", "max_length": max(longest, MIN_TOKENS), "return_tensors": "pt"}
    full = tokenizer(captions, **pad)
    kept = ["" if drop else caption for caption, drop in zip(captions, dropped, strict=True)]
    shown = tokenizer(kept, **pad)
    bias = (full.attention_mask[:, None, :].float() - 1) * 10_000.0
    return Batch(latents, means, shown.input_ids, shown.attention_mask, bias.repeat_interleave(latents.shape[2], dim=0))
