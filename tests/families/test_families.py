"""Every family beyond the matrix: reused steps by hand, bfloat16, frames, calibration, what is refused."""

import numpy as np
import pytest
import torch

from lemica_backend.errors import InvalidRequestError
from lemica_backend.replay import EngineReplayer
from lemica_planner.replayer import Segment
from tests.tiny.family import COMPUTED, assert_close, reused_by_hand

SHORT, LONG = "a cat", "a sign on a door"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_it_rounds_as_the_pipeline_does(piped, dtype):
    half = piped.in_dtype(dtype)
    ours, theirs = (make(SHORT, guidance_scale=1.0, steps=3) for make in (half.ours, half.theirs))
    assert (ours.float() - theirs.float()).abs().mean() <= 0.01 * theirs.float().abs().mean()
    assert half.model.decode(ours).shape[0] == half.model.info.num_frames


def test_prompt_guidance_and_seed_matter(piped):
    """Or the comparisons with the pipeline would prove little."""
    this = piped.ours(SHORT)
    for other in (piped.ours(LONG), piped.ours(SHORT, guidance_scale=6.0), piped.ours(SHORT, seed=8)):
        assert (other - this).abs().max() > 1e-2


def test_reused_steps_equal_residuals_kept_by_hand(piped):
    ours = piped.ours(SHORT, computed=COMPUTED)
    with reused_by_hand(piped.pipeline, COMPUTED):
        assert_close(ours, piped.theirs(SHORT))
    assert (ours - piped.ours(SHORT)).abs().max() > 1e-3


def test_a_row_that_reuses_does_not_depend_on_rows_that_compute(piped):
    made = [{"computed": (0, 1, 3, 5), "operator": operator} for operator in ("output", "noise")]
    plans = [{"computed": COMPUTED}, *made, {}]
    alone = [piped.ours(SHORT, **plan) for plan in plans]
    together = piped.run([piped.job(SHORT, **plan) for plan in plans])
    for one, other in zip(together, alone, strict=True):
        assert_close(one, other)


def test_frames_equal_the_pipelines(piped):
    ours = piped.model.decode(piped.ours(SHORT), seed=7).astype(int)
    theirs = (piped.theirs(SHORT, kind="np").numpy() * 255).round().astype(int)
    info = piped.model.info
    assert ours.shape == theirs.shape == (info.num_frames, info.height, info.width, 3)
    assert np.abs(ours - theirs).max() <= 1


def test_a_replayed_edge_equals_a_whole_generation_and_a_direct_one_costs_nothing(piped):
    session = EngineReplayer(piped.model, piped.config, "tiny").open(piped.sample(SHORT, 7))
    full = piped.ours(SHORT)
    expected = (piped.ours(SHORT, computed=(0, 1, 3, 4, 5), operator="output-linear") - full).abs().mean().item()
    kept, rounding = Segment(1, 3, "output-linear", (0,)), 1e-6 * max(1, full.abs().max().item())
    assert session.errors([Segment(1, 2), Segment(4, 5)]) == pytest.approx(0, abs=rounding)
    assert session.errors([kept]) == pytest.approx([expected], rel=1e-3)
    assert expected > 1e-5


def test_what_the_pipeline_would_cut_is_refused(piped):
    with pytest.raises(InvalidRequestError, match=r"prompt has \d+ tokens; at most"):
        piped.job("word " * 500)
