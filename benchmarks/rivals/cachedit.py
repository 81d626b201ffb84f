"""cache-dit 1.5.3 (Apache-2.0, ``pip install '.[rivals]'``): its masks as lists of steps, and DBCache itself.

It has no adapter for Latte, and two interleaved lists are nothing that a ``BlockAdapter`` can say, so DBCache runs on
the re-cut Latte. Its masks are made for 28 steps and stretched by the library itself.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from benchmarks.rivals.plans import reused
from benchmarks.rivals.recut import run_recut
from benchmarks.rivals.rival import Rival

POLICIES = ("ultra", "fast", "medium", "slow")


class Setting(NamedTuple):
    """DBCache's threshold on the change of the first pair's residual, and how many first steps are computed."""

    threshold: float
    warm_up: int


RECOMMENDED = Setting(0.08, 8)  # cache-dit's defaults
SETTINGS = (
    RECOMMENDED,
    Setting(0.16, 4),
    Setting(0.3, 4),
    Setting(0.6, 4),
)


def is_installed() -> bool:
    """Say whether cache-dit can be imported."""
    return importlib.util.find_spec("cache_dit") is not None


def caches(num_steps: int, pairs: int) -> Iterator[Rival]:
    """Yield masks and DBCache at every setting; `pairs` is the length of the re-cut model's list."""
    for policy in POLICIES:
        steps = [step for step, computes in enumerate(_mask(num_steps, policy)) if computes]
        yield reused("cache-dit mask", policy, steps, num_steps, best=True)
    for order in (0, 1):
        for setting in SETTINGS:
            yield _dbcache(setting, order, num_steps, pairs)


def _mask(num_steps: int, policy: str) -> list[int]:
    mask: list[int] = library().steps_mask(total_steps=num_steps, mask_policy=policy)
    return mask


def _dbcache(setting: Setting, order: int, num_steps: int, pairs: int) -> Rival:
    install = partial(db_cache, setting=setting, order=order, num_steps=num_steps)
    method = "cache-dit DBCache" + " TaylorSeer" * order
    name = f"{setting.threshold:g}/W{setting.warm_up}"
    recipe = f"cache-dit 1.5.3 {setting} {order}"
    return Rival(method, name, recipe, partial(run_recut, install=install), setting == RECOMMENDED, gate=1 / pairs)


def db_cache(net: Any, *, setting: Setting, order: int, num_steps: int) -> object:
    """Install DBCache F1B0, with the Taylor calibrator if `order` is above 0; its default F8 is the whole model."""
    cache_dit = library()
    adapter = cache_dit.BlockAdapter(
        transformer=net,
        blocks=net.transformer_blocks,
        blocks_name="transformer_blocks",
        forward_pattern=cache_dit.ForwardPattern.Pattern_3,
    )
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        residual_diff_threshold=setting.threshold,
        max_warmup_steps=setting.warm_up,
        num_inference_steps=num_steps,
        enable_separate_cfg=False,  # both branches are one batch
    )
    calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order) if order else None
    handle: object = cache_dit.enable_cache(adapter, cache_config=config, calibrator_config=calibrator)
    return handle


def library() -> Any:
    """Import cache-dit, an optional extra, and keep its messages about each generation quiet."""
    import cache_dit  # noqa: PLC0415 - only who compares with it needs it

    for name in list(logging.root.manager.loggerDict):
        if name.lower().startswith(("cache_dit", "cache-dit")):
            logging.getLogger(name).setLevel(logging.ERROR)
    return cache_dit
