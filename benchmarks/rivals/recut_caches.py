"""diffusers' caches of the whole block list, on the re-cut Latte: their own code, with blocks in the right order."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from diffusers import FirstBlockCacheConfig, SeaCacheConfig
from torch import Tensor, nn

from benchmarks.rivals.recut import run_recut
from benchmarks.rivals.rival import Rival

FIRST_BLOCK_THRESHOLDS = (0.05, 0.08, 0.12, 0.2, 0.4)
FIRST_BLOCK_RECOMMENDED = 0.05  # diffusers' default
SEA_RECOMMENDED = (0.25, 2)  # diffusers' defaults: threshold, longest run of skipped steps
SEA_SETTINGS = (SEA_RECOMMENDED, (0.25, 4), (0.5, 4), (0.5, 8), (1.0, 8))


def caches(pairs: int) -> Iterator[Rival]:
    """Yield FirstBlockCache and SeaCache at every setting; `pairs` is the length of the list."""
    for threshold in FIRST_BLOCK_THRESHOLDS:
        install = partial(first_block, threshold=threshold)
        recommended = threshold == FIRST_BLOCK_RECOMMENDED
        yield _rival("first block", f"{threshold:g}", install, recommended, gate=1 / pairs)
    for setting in SEA_SETTINGS:
        threshold, run = setting
        yield _rival(
            "seacache", f"{threshold:g}/{run}", partial(sea, threshold=threshold, run=run), setting == SEA_RECOMMENDED
        )


def first_block(net: Any, *, threshold: float) -> None:
    """Install FirstBlockCache: the first pair always runs, and how much its residual changed decides."""
    net.enable_cache(FirstBlockCacheConfig(threshold=threshold))


def sea(net: Any, *, threshold: float, run: int) -> None:
    """Install SeaCache (arXiv 2602.18993), which looks at the filtered latents and extrapolates the residual."""
    config = SeaCacheConfig(threshold=threshold, max_consecutive_cached=run, raw_vision_callback=_latents)
    net.enable_cache(config)


def _latents(_net: nn.Module, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> list[Tensor]:
    return [args[0][0]]  # both branches see the same latents


def _rival(method: str, setting: str, install: partial[None], recommended: bool, gate: float = 0.0) -> Rival:
    recipe = f"{install.func.__name__} {sorted(install.keywords.items())}"
    return Rival(method, setting, recipe, partial(run_recut, install=install), recommended, gate)
