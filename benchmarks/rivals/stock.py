"""diffusers' own caches that work on Latte as it is: they skip modules inside the blocks, never the whole stack.

``LattePipeline`` runs them. It opens no cache context, which some of them need, so one is opened around every call
of the transformer, with the step and the noise level in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers import FasterCacheConfig, PyramidAttentionBroadcastConfig, TaylorSeerCacheConfig
from torch import Tensor

from benchmarks.rivals.rival import Rival, Start

MakeConfig = Callable[[Any], Any]  # the pipeline's current timestep is what some caches must ask for

# (spatial, temporal, cross): a result is used that many steps in a row; the authors' settings for Latte
PAB_RANGES = ((2, 3, 6), (3, 4, 7), (4, 6, 9))
PAB_WINDOW = (100, 800)
FASTER_SKIPS = (5, 10)  # the unconditional branch is computed every so many steps
TAYLOR_INTERVALS = (2, 3, 5, 8)
_ATTENTIONS = (r"(temporal_)?transformer_blocks\.\d+\.attn[12]",)
_MODULES = (r"(temporal_)?transformer_blocks\.\d+\.(attn[12]|ff)",)


def caches() -> Iterator[Rival]:
    """Yield every stock cache in every setting."""
    for ranges in PAB_RANGES:
        yield _rival("pab", "/".join(map(str, ranges)), partial(pab, ranges=ranges), True)
    for skip in FASTER_SKIPS:
        yield _rival("fastercache", f"uncond {skip}", partial(faster_cache, skip=skip), skip == 5)
    for order in (1, 2):
        for interval in TAYLOR_INTERVALS:
            make = partial(taylorseer, interval=interval, order=order, identifiers=_MODULES)
            yield _rival(f"taylorseer modules O{order}", f"N={interval}", make, interval == 5)
    attentions = partial(taylorseer, interval=5, order=1, identifiers=_ATTENTIONS)
    yield _rival("taylorseer attentions", "N=5", attentions, True)
    for interval in TAYLOR_INTERVALS:
        yield _rival("taylorseer lite", f"N={interval}", partial(taylorseer_lite, interval=interval), interval == 5)


def pab(pipeline: Any, *, ranges: tuple[int, int, int]) -> Any:
    """Return Pyramid Attention Broadcast (arXiv 2408.12588); its default names take temporal blocks for spatial."""
    spatial, temporal, cross = ranges
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=spatial,
        temporal_attention_block_skip_range=temporal,
        cross_attention_block_skip_range=cross,
        spatial_attention_timestep_skip_range=PAB_WINDOW,
        temporal_attention_timestep_skip_range=PAB_WINDOW,
        cross_attention_timestep_skip_range=PAB_WINDOW,
        spatial_attention_block_identifiers=(r"^transformer_blocks",),
        temporal_attention_block_identifiers=(r"^temporal_transformer_blocks",),
        cross_attention_block_identifiers=(r"^transformer_blocks",),
        current_timestep_callback=lambda: int(pipeline.current_timestep),
    )


def faster_cache(pipeline: Any, *, skip: int) -> Any:
    """Return FasterCache (arXiv 2410.19355) with the values of diffusers' own example."""
    return FasterCacheConfig(
        spatial_attention_block_skip_range=2,
        temporal_attention_block_skip_range=2,
        unconditional_batch_skip_range=skip,
        attention_weight_callback=lambda _: 0.3,
        tensor_format="BCFHW",
        current_timestep_callback=lambda: int(pipeline.current_timestep),
    )


def taylorseer(_pipeline: Any, *, interval: int, order: int, identifiers: tuple[str, ...]) -> Any:
    """Return TaylorSeer (arXiv 2503.06923); the default names match nothing on Latte, so these are given."""
    return TaylorSeerCacheConfig(
        cache_interval=interval,
        max_order=order,
        taylor_factors_dtype=torch.float32,
        cache_identifiers=list(identifiers),
    )


def taylorseer_lite(_pipeline: Any, *, interval: int) -> Any:
    """Return its light variant: the blocks answer zeros, and only the last projection is forecast."""
    return TaylorSeerCacheConfig(
        cache_interval=interval, max_order=1, taylor_factors_dtype=torch.float32, use_lite_mode=True
    )


def _rival(method: str, setting: str, make: MakeConfig, recommended: bool) -> Rival:
    assert isinstance(make, partial)
    recipe = f"{make.func.__name__} {sorted(make.keywords.items())}"
    return Rival(method, setting, recipe, partial(run_stock, make=make), recommended)


@torch.inference_mode()
def run_stock(begin: Start, make: MakeConfig) -> Tensor:
    """Generate with ``LattePipeline`` and this cache; afterwards the pipeline is as before."""
    net = begin.model.net
    net.enable_cache(make(begin.model.pipeline))
    try:
        with context_each_call(begin):
            return run_pipeline(begin)
    finally:
        net.disable_cache()


def run_pipeline(begin: Start) -> Tensor:
    """Return the final latents of ``LattePipeline`` for the same noise."""
    planned, noise = begin.planned, begin.model.initial_noise(begin.planned.seed)
    output = begin.model.pipeline(
        planned.prompt,
        num_inference_steps=planned.num_inference_steps,
        guidance_scale=planned.guidance_scale,
        latents=noise[None],
        output_type="latent",
        clean_caption=False,
        height=None,  # the model's own size, not 512
        width=None,
    )
    latents: Tensor = output.frames[0]
    return latents


@contextmanager
def context_each_call(begin: Start) -> Iterator[None]:
    """Open a cache context around each call of the transformer, once a step, until this one ends."""
    net, steps = begin.model.net, begin.planned.num_inference_steps
    levels = iter(enumerate(noise_levels(begin)))
    forward = net.forward

    def in_context(*args: Any, **kwargs: Any) -> Any:
        step, sigma = next(levels)
        with net.cache_context("cond_uncond", step_index=step, sigma=sigma, num_inference_steps=steps):
            return forward(*args, **kwargs)

    net.forward = in_context
    try:
        yield
    finally:
        net.forward = forward


def noise_levels(begin: Start) -> list[float]:
    """Return the share of the noise in noise plus signal at every step, which is flow matching's sigma."""
    scheduler: Any = begin.model.new_scheduler(begin.planned.num_inference_steps)
    alpha_bar = scheduler.alphas_cumprod[scheduler.timesteps.cpu().long()].double()
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    levels: list[float] = (noise / (noise + signal)).tolist()
    return levels
