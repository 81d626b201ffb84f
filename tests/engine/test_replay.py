"""Calibration replays against whole generations with one segment reused."""

import dataclasses

import numpy as np
import pytest
import torch

from lemica_backend.denoise import denoise
from lemica_backend.differences import METRICS
from lemica_backend.errors import ModelLoadError
from lemica_backend.job import start_job
from lemica_backend.operators import OPERATORS
from lemica_backend.planned import plan_request
from lemica_backend.replay import EngineReplayer, open_replayer
from lemica_backend.types import GenerationRequest
from lemica_planner import CalibrationError, Fill, PlanEntry, Sample
from lemica_planner.replayer import Segment

STEPS = 6


def final_latents(model, config, computed, operator="residual"):
    request = GenerationRequest("a cat", seed=4, budget="full")
    planned = plan_request(request, info=model.info, config=config, plan=None)
    reuse = {step: Fill(operator) for step in range(STEPS) if step not in computed}
    job = start_job(model, dataclasses.replace(planned, computed=frozenset(computed), reuse=reuse))
    while not job.is_finished:
        denoise(model, [job])
    return job.latents.numpy()


@pytest.fixture(scope="module")
def session(model, config):
    return EngineReplayer(model, config, "tiny").open(Sample("a cat", 4))


@pytest.mark.parametrize("operator", OPERATORS)
def test_each_edge_equals_a_whole_generation_with_that_segment_reused(session, model, config, operator):
    full = final_latents(model, config, range(STEPS))
    for end in range(2, STEPS):
        segments = [
            Segment(start, end, operator, tuple(range(max(0, start - OPERATORS[operator].order), start)))
            for start in range(end - 1)
        ]
        without = [set(range(STEPS)) - set(range(segment.start + 1, end)) for segment in segments]
        expected = [np.abs(final_latents(model, config, left, operator) - full).mean() for left in without]
        np.testing.assert_allclose(session.errors(segments), expected, rtol=1e-3, atol=1e-6)


def test_the_history_of_a_forecast_may_have_gaps(session, model, config):
    """The only error of a path is its last segment's when the one before it is not skipped over."""
    full = final_latents(model, config, range(STEPS))
    near, far = (Segment(2, 5, "output-linear", (start,)) for start in (1, 0))
    errors = session.errors([near, far])
    assert errors[0] == pytest.approx(np.abs(final_latents(model, config, {0, 1, 2, 5}, "output-linear") - full).mean())
    assert abs(errors[0] - errors[1]) > 1e-3 * errors[0]


def test_whole_paths_equal_whole_generations(session, model, config):
    full = final_latents(model, config, range(STEPS))
    paths = [PlanEntry((0, 2, 5), operators=(name, name)) for name in OPERATORS]
    expected = [np.abs(final_latents(model, config, {0, 2, 5}, name) - full).mean() for name in OPERATORS]
    np.testing.assert_allclose(session.outcomes(paths), expected, rtol=1e-3, atol=1e-6)


def test_a_path_may_change_its_operator(session):
    mixed, first, second = session.outcomes(
        [
            PlanEntry((0, 2, 5), operators=names)
            for names in (("residual", "output"), ("residual",) * 2, ("output",) * 2)
        ]
    )
    assert len({mixed, first, second}) == 3


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_measure_what_they_say(model, config, metric):
    full, cached = (final_latents(model, config, computed) for computed in (range(STEPS), {0, 1, 4, 5}))
    frames = [model.decode(torch.from_numpy(latents)).astype(float) / 255 for latents in (full, cached)]
    expected = {
        "latents_l1": np.abs(full - cached).mean(),
        "latents_l2": np.sqrt(np.square(full - cached).mean()),
        "frames_l2": np.sqrt(np.square(frames[0] - frames[1]).mean()),
    }[metric]
    replayer = EngineReplayer(model, config, "tiny", metric)
    assert replayer.provenance().metric == metric
    assert replayer.open(Sample("a cat", 4)).errors([Segment(1, 4)])[0] == pytest.approx(expected, rel=1e-3)


def test_an_unknown_metric_is_named(model, config):
    with pytest.raises(ModelLoadError, match=r"'vmaf'.*latents_l1"):
        EngineReplayer(model, config, "tiny", "vmaf")


def test_fitted_weights_are_used(session):
    """Weights of (0, 1) take the last value as it is, those of (-1, 2) follow the line of equal times."""
    fitted = [Segment(3, 5, "residual-fitted", (2,), weights=(weights,)) for weights in ((0.0, 1.0), (-1.0, 2.0))]
    assert session.errors(fitted[:1]) == pytest.approx(session.errors([Segment(3, 5)]), rel=1e-4)
    assert session.errors(fitted[1:])[0] != pytest.approx(session.errors(fitted[:1])[0], rel=1e-2)


def test_split_weights_forecast_the_conditional_residual_and_the_guidance(session):
    """Equal halves are the weights of both branches; weights of the guidance alone move the result."""
    fitted = Segment(3, 5, "residual-fitted", (2,), weights=((-0.5, 1.5),))
    alike, other = (
        Segment(3, 5, "residual-split", (2,), weights=((-0.5, 1.5, *guidance),))
        for guidance in ((-0.5, 1.5), (0.0, 1.0))
    )
    assert session.errors([alike]) == pytest.approx(session.errors([fitted]), rel=1e-4)
    assert session.errors([other])[0] != pytest.approx(session.errors([fitted])[0], rel=1e-2)


def test_the_guidance_is_the_difference_of_the_branches(session):
    grams = session.grams()
    values = [job.cache.latest() for job in session._before[1:]]
    rows = [(value["cond"] - value["uncond"]).flatten().double() for value in values]
    assert grams["guidance"][2, 3] == pytest.approx((rows[2] @ rows[3] / len(rows[2])).item())


def test_without_guidance_there_is_nothing_to_split(model, config):
    defaults = config.defaults.model_copy(update={"guidance_scale": 1.0})
    replayer = EngineReplayer(model, config.model_copy(update={"defaults": defaults}), "tiny")
    assert "residual-split" not in replayer.operators()
    assert "cond" not in replayer.open(Sample("a cat", 4)).grams()


@pytest.mark.parametrize(
    ("source", "keys"), [("residual", ("uncond", "cond")), ("output", ("guided",)), ("noise", ("noise",))]
)
def test_grams_are_the_products_of_what_the_steps_made(session, source, keys):
    gram = session.grams()[source]
    values = [job.cache.latest() for job in session._before[1:]]
    rows = [torch.cat([value[key].flatten() for key in keys]).double() for value in values]
    assert gram[1, 4] == pytest.approx((rows[1] @ rows[4] / len(rows[1])).item())
    np.testing.assert_allclose(gram, gram.T)


def test_the_drift_is_the_difference_on_arrival(session):
    """The last step is all that a segment which ends there leaves to compute."""
    segments = [Segment(start, end, "output") for start, end in ((0, 2), (1, 4), (2, 5))]
    drifts = session.drifts(segments)
    assert (drifts > 0).all()
    assert session.drifts(segments[1:2]) == pytest.approx(drifts[1:2], rel=1e-3)


def test_a_direct_edge_costs_nothing(model, config):
    session = EngineReplayer(model, config, "tiny").open(Sample("a cat", 4))
    assert session.errors([Segment(1, 2)])[0] <= 1e-6


def test_a_prompt_that_is_too_long_is_named(model, config):
    with pytest.raises(CalibrationError, match=r"word word.*at most 120"):
        EngineReplayer(model, config, "tiny").open(Sample("word " * 100, 0))


def test_the_highest_version_is_calibrated(weights, tmp_path):
    for version in ("1", "2", "10"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "model.json").write_text("{}" if version == "10" else "broken")
    (tmp_path / "10" / "weights").symlink_to(weights)
    assert open_replayer(tmp_path).provenance().num_inference_steps == 50


def test_provenance_names_what_the_errors_depend_on(model, config):
    provenance = EngineReplayer(model, config, "tiny").provenance()
    assert provenance.model == "tiny"
    assert provenance.weights_hash == model.info.weights_hash
    assert (provenance.num_inference_steps, provenance.guidance_scale) == (STEPS, 4.0)
    assert (provenance.num_frames, provenance.height, provenance.width) == (16, 48, 48)
