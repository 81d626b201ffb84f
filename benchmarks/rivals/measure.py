"""Make the videos: one full run a prompt, and what every rival loses against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from benchmarks.rivals.block_work import BlockWork, blocks_of
from benchmarks.rivals.fidelity import attributes_right
from benchmarks.rivals.rival import OpenLatte, Rival, Start, run_full, start
from benchmarks.rivals.rows import QualityRow, Store
from demo.metrics import compare
from lemica_backend.config import ModelConfig

FULL_METHOD = "full"


class Reference(NamedTuple):
    """The full run of one prompt and what it cost."""

    latents: Tensor
    frames: NDArray[np.uint8]
    flops: int


def full_rival() -> Rival:
    """Return the reference as a rival of its own: every other method is as good as this at best."""
    return Rival(FULL_METHOD, "all", "every step", run_full)


def make_videos(
    model: OpenLatte, config: ModelConfig, rivals: Sequence[Rival], prompts: Sequence[tuple[str, int]], store: Store
) -> None:
    """Add to `store` every row that is not in it yet; `prompts` are texts and seeds."""
    weights = model.info.weights_hash
    known = {(row.method, row.setting, row.prompt, row.seed) for row in store.quality(rivals, weights)}
    bar: tqdm[Any] = tqdm(total=len(rivals) * len(prompts), initial=len(known), desc="videos")
    with bar:
        for prompt, seed in prompts:
            missing = [rival for rival in rivals if (rival.method, rival.setting, prompt, seed) not in known]
            if missing:
                _make_missing(start(model, config, prompt, seed), missing, store, bar)


def _make_missing(begin: Start, rivals: Sequence[Rival], store: Store, bar: tqdm[Any]) -> None:
    reference = make_reference(begin)
    for rival in rivals:
        bar.set_postfix_str(f"{rival.method} {rival.setting}", refresh=False)
        store.add(judge(begin, rival, reference))
        bar.update()


def make_reference(begin: Start) -> Reference:
    """Run every step and decode."""
    work = BlockWork()
    with work.watch(blocks_of(begin.model.net)):
        latents = run_full(begin)
    return Reference(latents, _decode(begin, latents), work.flops)


def judge(begin: Start, rival: Rival, reference: Reference) -> QualityRow:
    """Run the rival, count its block work, and compare its video with the full one."""
    work = BlockWork()
    with work.watch(blocks_of(begin.model.net)):
        latents = rival.denoise(begin)
    frames = _decode(begin, latents)
    quality = compare(frames, reference.frames)
    return QualityRow(
        method=rival.method,
        setting=rival.setting,
        recipe=rival.digest,
        weights=begin.model.info.weights_hash,
        prompt=begin.planned.prompt,
        seed=begin.planned.seed,
        forwards=work.flops / reference.flops * begin.planned.num_inference_steps,
        lpips=quality.lpips,
        ssim=quality.ssim,
        psnr_db=quality.psnr,
        latents_l1=(latents - reference.latents).abs().mean().item(),
        attributes_right=attributes_right(frames, begin.planned.prompt),
    )


@torch.inference_mode()
def _decode(begin: Start, latents: Tensor) -> NDArray[np.uint8]:
    return begin.model.decode(latents)
