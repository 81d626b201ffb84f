"""Calibration needs nothing of the family: it runs, and its errors are those of served videos."""

import numpy as np
import pytest

from lemica_backend.denoise import denoise
from lemica_backend.job import start_job
from lemica_backend.planned import plan_request
from lemica_backend.replay import EngineReplayer
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, Sample
from lemica_planner.replayer import Segment

STEPS = 6


def final_latents(model, config, plan, budget):
    request = GenerationRequest("a cat", seed=4, budget=budget)
    job = start_job(model, plan_request(request, info=model.info, config=config, plan=plan))
    while not job.is_finished:
        denoise(model, [job])
    return job.latents.numpy()


def test_the_error_of_a_segment_is_what_serving_it_loses(model, config, plan):
    skipping = CachePlan.from_steps(plan.provenance, {4: (0, 1, 4, 5)}, names={})
    full, cached = (final_latents(model, config, skipping, budget) for budget in ("full", "4"))
    session = EngineReplayer(model, config, "tiny").open(Sample("a cat", 4))
    errors = session.errors([Segment(1, 4), Segment(1, 2)])
    assert errors[0] == pytest.approx(np.abs(full - cached).mean(), rel=1e-3)
    assert errors[1] <= 1e-6


@pytest.mark.parametrize("operator", ["residual", "residual-linear", "output", "output-linear"])
def test_every_kind_of_operator_runs(model, config, operator):
    session = EngineReplayer(model, config, "tiny").open(Sample("a cat", 4))
    assert session.errors([Segment(3, 5, operator, (2,))])[0] > 0


def test_provenance_names_scheduler_and_shift(model, config):
    provenance = EngineReplayer(model, config, "tiny").provenance()
    assert provenance.scheduler == "RectifiedFlowScheduler"
    assert set(provenance.scheduler_config) == {"fps", "num_train_timesteps", "shift"}
