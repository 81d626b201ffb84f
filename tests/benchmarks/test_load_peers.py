"""Whole-request batches: each request by its own plan, or all by that of the largest budget."""

import numpy as np
import pytest
import torch

from benchmarks.load.peers.whole_batch import WholeBatches
from lemica_backend.config import Defaults, ModelConfig
from lemica_backend.models import load_model
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, Provenance
from tests.tiny_latte import build_tiny_latte

STEPS = 6
PATHS = {2: (0, 5), 4: (0, 1, 3, 5)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    build_tiny_latte(folder)
    return load_model("latte", folder, dtype=torch.float32, device="cpu")


def made(model, *budgets, one_plan):
    config = ModelConfig(defaults=Defaults(num_inference_steps=STEPS, guidance_scale=4.0))
    plan = CachePlan.from_steps(Provenance(num_inference_steps=STEPS), PATHS)
    batches = WholeBatches(model, config, plan, one_plan=one_plan)
    asked = [GenerationRequest("a cat", seed=3, budget=budget) for budget in budgets]
    return batches.run([batches.planned(each) for each in asked])


def steps_of(results):
    return [tuple(result.info["computed_steps"]) for result in results]


def test_each_request_follows_its_own_plan(model):
    results = made(model, "2", "4", one_plan=False)
    assert steps_of(results) == [PATHS[2], PATHS[4]]
    assert not np.array_equal(results[0].latents, results[1].latents)


def test_a_batch_of_one_plan_follows_its_largest_budget(model):
    results = made(model, "2", "4", one_plan=True)
    assert steps_of(results) == [PATHS[4], PATHS[4]]
    np.testing.assert_allclose(results[0].latents, results[1].latents, atol=1e-5)
    assert steps_of(made(model, "2", "full", one_plan=True)) == [tuple(range(STEPS))] * 2
    assert steps_of(made(model, "2", one_plan=True)) == [PATHS[2]]
