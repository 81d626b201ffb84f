"""A model with another sampler than its pipeline's: against diffusers' own pipeline with that sampler."""

import dataclasses
import json

import diffusers
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from lemica_backend.config import ModelConfig, SchedulerConfig
from lemica_backend.denoise import denoise
from lemica_backend.engine import Engine, load_engine
from lemica_backend.errors import InvalidRequestError, ModelLoadError
from lemica_backend.job import start_job
from lemica_backend.models import resample
from lemica_backend.noise import to_noise, to_output
from lemica_backend.opening import open_model
from lemica_backend.planned import plan_request
from lemica_backend.replay import EngineReplayer
from lemica_backend.sampler_time import sampler_times
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, Fill, PlanMismatchError
from tests.engine.test_parity import assert_close, pipeline_latents

STEPS = 6
CHOICES = {
    "DDIMScheduler": {"timestep_spacing": "trailing"},
    "EulerDiscreteScheduler": {"timestep_spacing": "linspace"},
    "UniPCMultistepScheduler": {"solver_order": 2, "solver_type": "bh2"},
    "DPMSolverMultistepScheduler": {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True},
    "DEISMultistepScheduler": {"timestep_spacing": "trailing"},
}


def choose(name=None, **parameters):
    return SchedulerConfig.model_validate({"class": name, **parameters})


def with_steps(steps):
    return ModelConfig.model_validate({"defaults": {"num_inference_steps": steps}})


def latents_of(model, config, computed=None, operator="residual"):
    request = GenerationRequest("a cat", seed=3, budget="full")
    planned = plan_request(request, info=model.info, config=config, plan=None)
    computed = planned.computed if computed is None else frozenset(computed)
    reuse = {step: Fill(operator) for step in planned.computed - computed}
    job = start_job(model, dataclasses.replace(planned, computed=computed, reuse=reuse))
    while not job.is_finished:
        denoise(model, [job])
    return job.latents.numpy()


@pytest.mark.parametrize("name", CHOICES)
def test_it_equals_the_pipeline_with_that_sampler(model, config, pipeline, name):
    own = pipeline.scheduler
    pipeline.scheduler = getattr(diffusers, name).from_config(own.config, **CHOICES[name])
    try:
        theirs = pipeline_latents(pipeline, "a cat", seed=3)
    finally:
        pipeline.scheduler = own
    assert_close(latents_of(resample(model, choose(name, **CHOICES[name])), config), theirs)


def test_requests_with_different_samplers_share_a_tick(model, config):
    kinds = [model, *(resample(model, choose(name, **CHOICES[name])) for name in CHOICES)]
    planned = plan_request(GenerationRequest("a cat", seed=3, budget="full"), info=model.info, config=config, plan=None)
    jobs = [start_job(kind, planned) for kind in kinds]
    for _ in range(STEPS):
        denoise(model, jobs)
    for kind, job in zip(kinds, jobs, strict=True):
        np.testing.assert_allclose(job.latents.numpy(), latents_of(kind, config), rtol=1e-3, atol=1e-4)


def test_the_own_sampler_with_another_parameter(model, config):
    other = resample(model, choose(timestep_spacing="trailing"))
    assert other.info.scheduler == model.info.scheduler
    assert {key for key, value in other.info.scheduler_config.items() if model.info.scheduler_config[key] != value} == {
        "timestep_spacing"
    }
    assert np.abs(latents_of(other, config) - latents_of(model, config)).max() > 0.01


def test_a_second_choice_replaces_the_first(model):
    twice = resample(resample(model, choose(timestep_spacing="trailing")), choose("UniPCMultistepScheduler"))
    assert twice.info.scheduler_config["timestep_spacing"] == model.info.scheduler_config["timestep_spacing"]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (choose("HeunDiscreteScheduler"), "'HeunDiscreteScheduler'; allowed are DDIMScheduler"),
        (choose("UniPCMultistepScheduler", order=3), "takes no order; it takes num_train_timesteps"),
        (choose("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"), "noise"),
        (choose("DPMSolverMultistepScheduler", solver_type="none"), "refuses its parameters"),
        (choose("UniPCMultistepScheduler", timesteps=[999, 500]), r"takes none; DPMSolver"),
        (choose("DPMSolverMultistepScheduler", timesteps=[1000, 500]), "above 999"),
    ],
)
def test_an_impossible_choice_is_named(model, choice, message):
    with pytest.raises(ModelLoadError, match=message):
        resample(model, choice)


def test_given_timesteps_are_taken(model, config):
    """First-order DPM-Solver++ is DDIM (Lu et al. 2022), so DDIM's own timesteps give DDIM's own latents."""
    own = model.new_scheduler(STEPS).timesteps.tolist()
    given = resample(model, choose("DPMSolverMultistepScheduler", solver_order=1, timesteps=own))
    assert_close(latents_of(given, config), latents_of(model, config))
    assert given.info.scheduler_config["timesteps"] == own
    json.dumps(given.info.scheduler_config, allow_nan=False)
    with pytest.raises(InvalidRequestError, match="its 6 timesteps"):
        given.new_scheduler(5)


def test_the_engine_serves_the_choice_and_refuses_plans_for_another(weights, plan):
    served = {"weights": str(weights), "scheduler": {"class": "UniPCMultistepScheduler"}}
    served["defaults"] = {"num_inference_steps": STEPS}
    config = ModelConfig.model_validate(served)
    chosen = open_model(weights.parent, config)
    assert chosen.info.scheduler == "UniPCMultistepScheduler"
    provenance = EngineReplayer(chosen, config, "tiny").provenance()
    load_engine(weights.parent, config, CachePlan.from_steps(provenance, {3: (0, 2, 5)}).to_json()).close()
    with pytest.raises(ModelLoadError, match=r"scheduler: plan 'DDIMScheduler', served 'UniPCMultistepScheduler'"):
        load_engine(weights.parent, config, plan.to_json())


def test_a_plan_with_infinite_parameters_survives(model):
    info = resample(model, choose("DPMSolverMultistepScheduler")).info
    config = ModelConfig.model_validate({"defaults": {"num_inference_steps": STEPS}})
    provenance = EngineReplayer(resample(model, choose("DPMSolverMultistepScheduler")), config, "x").provenance()
    plan = CachePlan.from_json(CachePlan.from_steps(provenance, {3: (0, 2, 5)}).to_json())
    plan.require_match(scheduler=info.scheduler, scheduler_config=info.scheduler_config)
    with pytest.raises(PlanMismatchError, match="lambda_min_clipped"):
        plan.require_match(scheduler_config=info.scheduler_config | {"lambda_min_clipped": 0.0})


def test_a_request_for_other_steps_than_the_timesteps_is_refused(model, config):
    given = resample(model, choose("EulerDiscreteScheduler", timesteps=[990, 700, 500, 300, 100, 10]))
    engine = Engine(given, config)
    with pytest.raises(InvalidRequestError, match="its 6 timesteps"):
        engine.generate(GenerationRequest("a cat", num_inference_steps=4, budget="full"))
    engine.generate(GenerationRequest("a cat", budget="full"))
    engine.close()


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_held_noise_is_one_bigger_step(model, name, kind):
    """Every second step of ten skipped with the noise held: the same five timesteps, so the same video."""
    chosen = resample(model, choose(name, timestep_spacing="trailing", prediction_type=kind))
    held = latents_of(chosen, with_steps(10), computed=range(0, 10, 2), operator="noise")
    bigger = latents_of(chosen, with_steps(5))
    np.testing.assert_allclose(held, bigger, atol=2e-4 * np.abs(bigger).max())
    reused = latents_of(chosen, with_steps(10), computed=range(0, 10, 2), operator="output")
    assert (np.abs(reused - bigger).max() > 1e-3 * np.abs(bigger).max()) == (kind == "v_prediction")


def test_flow_matching_noise():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(10)
    sigma = sampler_times(scheduler)[4]
    clean, noise = torch.randn(2, 3, 4)
    latents = (1 - sigma) * clean + sigma * noise
    torch.testing.assert_close(to_noise(scheduler, sigma, latents, noise - clean), noise)
    torch.testing.assert_close(to_output(scheduler, sigma, latents, noise), noise - clean)
