"""What does not work on Latte as it is: each is tried here, and what it says or does is written down."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig, SeaCacheConfig, TaylorSeerCacheConfig
from torch import nn

from benchmarks.rivals import cachedit
from benchmarks.rivals.block_work import BlockWork, blocks_of
from benchmarks.rivals.measure import make_reference
from benchmarks.rivals.rival import Start, run_full
from benchmarks.rivals.stock import context_each_call, run_pipeline

STEPS = 6  # every fault shows within these


class Fault(NamedTuple):
    """One thing that was tried.

    Attributes
    ----------
    method, tried : str
        What, and how.
    outcome : str
        The exact error, or what happened in place of one.
    """

    method: str
    tried: str
    outcome: str


def faults(begin: Start) -> Iterator[Fault]:
    """Try everything that is known not to work; a line that says it works is news."""
    short = begin.with_steps(STEPS)
    first, mag = FirstBlockCacheConfig(), MagCacheConfig(mag_ratios=[1.0] * STEPS, num_inference_steps=STEPS)
    sea = SeaCacheConfig(threshold=10.0, raw_vision_callback=lambda _net, _args, kwargs: [kwargs["hidden_states"][0]])
    tries: list[tuple[str, str, Callable[[], str]]] = [
        ("diffusers FirstBlockCache", "no cache context", lambda: _hooked(short, first, in_context=False)),
        ("diffusers FirstBlockCache", "in a cache context", lambda: _hooked(short, first)),
        ("diffusers MagCache", "in a cache context", lambda: _hooked(short, mag)),
        ("diffusers SeaCache", "in a context with step and sigma", lambda: _hooked(short, sea)),
        ("diffusers TaylorSeer", "default names of modules", lambda: _hooked(short, TaylorSeerCacheConfig())),
    ]
    if cachedit.is_installed():
        tries += [
            ("cache-dit", "enable_cache(pipeline)", lambda: _cache_dit_pipeline(short)),
            ("cache-dit", "BlockAdapter over both lists, nothing skipped", lambda: _cache_dit_lists(short)),
        ]
    for method, tried, attempt in tries:
        yield Fault(method, tried, _outcome(attempt))


def _outcome(attempt: Callable[[], str]) -> str:
    try:
        return attempt()
    except Exception as error:  # the error is the result
        return f"{type(error).__name__}: {error}"


@torch.inference_mode()
def _hooked(begin: Start, config: Any, *, in_context: bool = True) -> str:
    net, work = begin.model.net, BlockWork()
    net.enable_cache(config)
    hooks = count_hooks(net)
    try:
        with ExitStack() as stack:
            if in_context:
                stack.enter_context(context_each_call(begin))
            stack.enter_context(work.watch(blocks_of(net)))
            latents = run_pipeline(begin)
    finally:
        net.disable_cache()
    reference = make_reference(begin)
    ran, change = STEPS * work.flops / reference.flops, (latents - reference.latents).abs().mean().item()
    return f"no error, {hooks} hooks, {ran:.1f} of {STEPS} forwards ran, latents differ by {change:.2g} (mean absolute)"


def count_hooks(net: nn.Module) -> int:
    """Return how many hooks diffusers has put into a model."""
    registries = [module._diffusers_hook for module in net.modules() if hasattr(module, "_diffusers_hook")]
    return sum(len(registry.hooks) for registry in registries)  # type: ignore[union-attr, arg-type, misc]


def _cache_dit_pipeline(begin: Start) -> str:
    cachedit.library().enable_cache(begin.model.pipeline)
    return "no error"


@torch.inference_mode()
def _cache_dit_lists(begin: Start) -> str:
    """Give both lists to one adapter: it calls each list as a whole, in Latte's loop over pairs."""
    cache_dit, original = cachedit.library(), begin.model.pipeline.transformer
    net = copy.deepcopy(original)
    pattern = cache_dit.ForwardPattern.Pattern_3
    adapter = cache_dit.BlockAdapter(
        transformer=net,
        blocks=[net.transformer_blocks, net.temporal_transformer_blocks],
        blocks_name=["transformer_blocks", "temporal_transformer_blocks"],
        forward_pattern=[pattern, pattern],
    )
    nothing = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1, residual_diff_threshold=0.0, max_warmup_steps=STEPS, num_inference_steps=STEPS
    )
    cache_dit.enable_cache(adapter, cache_config=nothing)
    begin.model.pipeline.transformer = net
    try:
        latents = run_pipeline(begin)
    finally:
        begin.model.pipeline.transformer = original
    change = (latents - run_full(begin)).abs().mean().item()
    return f"no error, but though nothing is skipped, latents differ by {change:.2g} (mean absolute): wrong order"
