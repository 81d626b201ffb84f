"""Every family against its own pipeline of diffusers: full budgets, mixed batches, reused steps, calibration."""

import numpy as np
import pytest
import torch

from lemica_backend.errors import InvalidRequestError
from lemica_backend.replay import EngineReplayer
from lemica_planner import Sample
from lemica_planner.replayer import Segment
from tests.tiny.family import assert_close, first_block, reused_by_hand

SHORT, LONG = "a cat", 'a sign that says "open" on a door'
COMPUTED = (0, 3, 5)  # the second transformer of Wan 2.2 takes over at 3


@pytest.mark.parametrize("options", [{}, {"guidance_scale": 1.0}, {"negative_prompt": "fog", "steps": 4}])
def test_full_budget_equals_the_pipeline(family, options):
    assert_close(family.ours(SHORT, **options), family.theirs(SHORT, **options))


def test_in_bfloat16_it_rounds_as_the_pipeline_does(family):
    half = family.in_dtype(torch.bfloat16)
    ours, theirs = (make(SHORT, guidance_scale=1.0, steps=3) for make in (half.ours, half.theirs))
    assert (ours.float() - theirs.float()).abs().mean() <= 0.01 * theirs.float().abs().mean()
    assert half.model.decode(ours).shape[0] == half.model.info.num_frames


def test_a_mixed_batch_equals_the_pipeline_alone(family):
    """Three requests, of other prompts, seeds, guidance and steps, each begun a tick after the one before."""
    wanted = [
        (SHORT, {}),
        (LONG, {"seed": 8, "guidance_scale": 6.0, "negative_prompt": "a much longer text to avoid"}),
        ("", {"seed": 9, "guidance_scale": 1.0, "steps": 4}),
    ]
    ours = family.run([family.job(prompt, **options) for prompt, options in wanted], starts=[0, 1, 2])
    for latents, (prompt, options) in zip(ours, wanted, strict=True):
        assert_close(latents, family.theirs(prompt, **options))


def test_prompt_guidance_and_seed_matter(family):
    """Or the comparisons with the pipeline would prove little."""
    this = family.ours(SHORT)
    for other in (family.ours(LONG), family.ours(SHORT, guidance_scale=6.0), family.ours(SHORT, seed=8)):
        assert (other - this).abs().max() > 1e-2


def test_reused_steps_equal_residuals_kept_by_hand_and_no_block_runs_at_them(family):
    rows = []
    nets = [net for net in getattr(family.model, "_nets", (family.model._net,)) if net is not None]
    counters = [first_block(net).register_forward_hook(lambda *_: rows.append(1)) for net in nets]
    ours = family.ours(SHORT, computed=COMPUTED)
    for counter in counters:
        counter.remove()
    assert len(rows) == len(COMPUTED)
    with reused_by_hand(family.pipeline, COMPUTED):
        assert_close(ours, family.theirs(SHORT))
    assert (ours - family.ours(SHORT)).abs().max() > 1e-3


def test_a_row_that_reuses_does_not_depend_on_rows_that_compute(family):
    made = [{"computed": (0, 1, 3, 5), "operator": operator} for operator in ("output", "noise")]
    plans = [{"computed": COMPUTED}, *made, {}]
    alone = [family.ours(SHORT, **plan) for plan in plans]
    together = family.run([family.job(SHORT, **plan) for plan in plans])
    for one, other in zip(together, alone, strict=True):
        assert_close(one, other)


def test_frames_equal_the_pipelines(family):
    ours = family.model.decode(family.ours(SHORT), seed=7).astype(int)
    theirs = (family.theirs(SHORT, kind="np").numpy() * 255).round().astype(int)
    info = family.model.info
    assert ours.shape == theirs.shape == (info.num_frames, info.height, info.width, 3)
    assert np.abs(ours - theirs).max() <= 1


def test_a_replayed_edge_equals_a_whole_generation_and_a_direct_one_costs_nothing(family):
    session = EngineReplayer(family.model, family.config, "tiny").open(Sample(SHORT, 7))
    full = family.ours(SHORT)
    expected = (family.ours(SHORT, computed=(0, 1, 3, 4, 5), operator="output-linear") - full).abs().mean().item()
    kept, rounding = Segment(1, 3, "output-linear", (0,)), 1e-6 * max(1, full.abs().max().item())
    assert session.errors([Segment(1, 2), Segment(4, 5)]) == pytest.approx(0, abs=rounding)
    assert session.errors([kept]) == pytest.approx([expected], rel=1e-3)
    assert expected > 1e-5


def test_what_the_pipeline_would_cut_is_refused(family):
    with pytest.raises(InvalidRequestError, match=r"prompt has \d+ tokens; at most"):
        family.job("word " * 500)
