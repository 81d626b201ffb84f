"""Caches of others on a tiny Latte: the loops change nothing, the costs are counted, our rule is their rule."""

from functools import partial

import pytest
import torch
from diffusers import MagCacheConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.rivals import cachedit, recut_caches, stock
from benchmarks.rivals.block_work import BlockWork, blocks_of
from benchmarks.rivals.magcache import Setting, mag_steps
from benchmarks.rivals.measure import make_reference
from benchmarks.rivals.plans import reused
from benchmarks.rivals.recut import run_bare, run_recut
from benchmarks.rivals.rival import run_full
from benchmarks.rivals.stock import run_pipeline, run_stock
from benchmarks.rivals.taylorseer import on_residual
from benchmarks.rivals.teacache import run_tea
from benchmarks.rivals.unsupported import faults
from tests.rivals.conftest import PAIRS, STEPS


def forwards(begin, denoise):
    """Return the latents and how many forwards of the block stack ran."""
    work = BlockWork()
    with work.watch(blocks_of(begin.model.net)):
        latents = denoise(begin)
    return latents, work.flops / make_reference(begin).flops * STEPS


def assert_close(ours, theirs):
    assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, theirs.abs().max().item())


@pytest.mark.parametrize("loop", [run_pipeline, run_bare])
def test_every_loop_makes_the_same_video(begin, loop):
    latents, ran = forwards(begin, torch.inference_mode()(loop))
    assert_close(latents, run_full(begin))
    assert ran == pytest.approx(STEPS)


def test_block_work_is_what_torch_counts(begin):
    counter, work = FlopCounterMode(display=False), BlockWork()
    # torch counts the products of an attention only where they are made one by one
    with sdpa_kernel(SDPBackend.MATH), counter, work.watch(blocks_of(begin.model.net)):
        run_bare(begin)
    counted = counter.get_flop_counts()
    in_pairs = sum(sum(flops.values()) for name, flops in counted.items() if name.count(".") == 2 and "blocks" in name)
    assert work.flops == in_pairs > 0


def test_a_list_of_steps_costs_its_length(begin):
    assert forwards(begin, reused("x", "y", (0, 3, 7), STEPS).denoise)[1] == pytest.approx(3)


def test_magcache_is_diffusers_magcache(begin):
    ratios, setting = [1.0, *[0.96] * (STEPS - 1)], Setting(threshold=0.2, max_skip=3, retention=0.2)
    config = MagCacheConfig(
        mag_ratios=ratios, num_inference_steps=STEPS, threshold=0.2, max_skip_steps=3, retention_ratio=0.2
    )
    theirs, ran = forwards(begin, partial(run_recut, install=lambda net: net.enable_cache(config)))
    steps = mag_steps(ratios, setting)
    assert 2 < len(steps) < STEPS
    assert ran == pytest.approx(len(steps))
    assert_close(reused("x", "y", steps, STEPS).denoise(begin), theirs)


def test_teacache_with_a_threshold_of_nothing_is_the_full_run(begin):
    latents, ran = forwards(begin, partial(run_tea, polynomial=(1.0, 0.0), threshold=0.0))
    assert ran == pytest.approx(STEPS)
    assert_close(latents, run_full(begin))


def test_teacache_sees_the_latents(begin):
    few = forwards(begin, partial(run_tea, polynomial=(1.0, 0.0), threshold=0.5))[1]
    fewest = forwards(begin, partial(run_tea, polynomial=(1.0, 0.0), threshold=1e9))[1]
    assert fewest == pytest.approx(2)
    assert 2 < few < STEPS


@pytest.mark.parametrize(
    ("install", "computed"),
    [
        (partial(recut_caches.first_block, threshold=1e9), 1),
        (partial(cachedit.db_cache, setting=cachedit.Setting(1e9, 4), order=0, num_steps=STEPS), 4),
        (partial(cachedit.db_cache, setting=cachedit.Setting(1e9, 4), order=1, num_steps=STEPS), 4),
    ],
)
def test_a_gate_costs_one_pair_at_every_step(begin, install, computed):
    ran = forwards(begin, partial(run_recut, install=install))[1]
    assert ran == pytest.approx(computed + (STEPS - computed) / PAIRS)


@pytest.mark.parametrize(
    "install",
    [
        partial(recut_caches.first_block, threshold=-1.0),
        partial(recut_caches.sea, threshold=0.0, run=2),
        partial(cachedit.db_cache, setting=cachedit.Setting(0.0, 4), order=1, num_steps=STEPS),
    ],
)
def test_a_cache_that_skips_nothing_changes_nothing(begin, install):
    assert_close(run_recut(begin, install), run_full(begin))


def test_seacache_skips_as_often_as_it_may(begin):
    ran = forwards(begin, partial(run_recut, install=partial(recut_caches.sea, threshold=1e9, run=2)))[1]
    assert ran == pytest.approx(1 + 3 + 1)  # the first, every third after it, and the last


@pytest.mark.parametrize("rival", list(stock.caches())[::3], ids=lambda rival: f"{rival.method} {rival.setting}")
def test_stock_caches_save_work_and_leave_the_pipeline_as_it_was(begin, rival):
    latents, ran = forwards(begin, rival.denoise)
    assert 1 < ran < STEPS
    assert not torch.equal(latents, run_full(begin))
    assert_close(run_pipeline(begin), run_full(begin))


def test_broken_configurations_leave_the_pipeline_as_it_was(begin):
    def broken(_pipeline):
        return MagCacheConfig(mag_ratios=[1.0] * STEPS, num_inference_steps=STEPS)

    with pytest.raises(RuntimeError, match="must match"):
        run_stock(begin, broken)
    with torch.inference_mode():
        assert_close(run_pipeline(begin), run_full(begin))


def test_what_does_not_work_is_written_down(begin):
    found = {(fault.method, fault.tried): fault.outcome for fault in faults(begin)}
    assert "No cache context is set" in found["diffusers FirstBlockCache", "no cache context"]
    assert "must match the size" in found["diffusers FirstBlockCache", "in a cache context"]
    assert "must match the size" in found["diffusers MagCache", "in a cache context"]
    assert "0 hooks" in found["diffusers TaylorSeer", "default names of modules"]
    assert "6.0 of 6 forwards ran" in found["diffusers SeaCache", "in a context with step and sigma"]
    assert "not officially supported" in found["cache-dit", "enable_cache(pipeline)"]
    assert "wrong order" in found["cache-dit", "BlockAdapter over both lists, nothing skipped"]


def test_taylor_forecasts_run_on_the_step_cache(begin):
    rivals = {(rival.method, rival.setting): rival for rival in on_residual(STEPS)}
    linear, quadratic = (rivals[f"taylorseer O{order}", "N=5"] for order in (1, 2))
    assert forwards(begin, linear.denoise)[1] == pytest.approx(5)  # 0, 1, 2, 4, 9
    assert not torch.equal(linear.denoise(begin), quadratic.denoise(begin))
