"""Which adapter loads a folder, and what is refused before anything is served."""

import copy
import dataclasses
import json
from functools import partial
from typing import get_args

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
)

from lemica_backend.config import PIPELINE, Family, SchedulerConfig, Size
from lemica_backend.errors import ModelLoadError
from lemica_backend.models import FAMILIES as ADAPTERS
from lemica_backend.models import load_model, resample
from lemica_backend.replay import LeapReplayer
from lemica_planner import CalibrationError
from tests.tiny import wan
from tests.tiny.families import FAMILIES
from tests.tiny.family import Tiny, assert_close


@pytest.fixture(scope="module")
def folder(load):
    return load(FAMILIES["wan-unipc"]).folder


def open_folder(folder, family=None, **options):
    return load_model(family, folder, dtype=torch.float32, device="cpu", **options)


def test_every_family_of_model_json_has_an_adapter_and_is_tried():
    assert get_args(Family) == (*ADAPTERS, PIPELINE)
    assert set(ADAPTERS) == {tiny.family for tiny in FAMILIES.values()}


def test_the_weights_tell_their_family(family):
    assert family.model.info.family == family.tiny.family


def test_model_json_may_say_it_too(folder):
    size = Size(**wan.SIZE)
    assert open_folder(folder, "wan", size=size).info.family == "wan"
    with pytest.raises(ModelLoadError, match=r"family is 'ltx', but the weights in .* are of 'wan'"):
        open_folder(folder, "ltx", size=size)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"_class_name": "AllegroPipeline"}', "'AllegroPipeline'; served are LattePipeline, OpenSoraPipeline"),
        ("{}", "no JSON object with a _class_name"),
        ("[]", "no JSON object with a _class_name"),
        ("{", "no JSON object with a _class_name"),
    ],
)
def test_another_pipeline_is_named(tmp_path, text, says):
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(ModelLoadError, match=says):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ({"height": 40}, r"size\.height: got 40; this model makes multiples of 16"),
        ({"width": 8}, r"size\.width: got 8"),
        ({"num_frames": 8}, r"size\.num_frames: got 8; this model makes 1 more than multiples of 4"),
    ],
)
def test_a_size_that_the_pipeline_would_round_is_refused(folder, size, says):
    with pytest.raises(ModelLoadError, match=says):
        open_folder(folder, size=Size(**(dict(wan.SIZE) | size)))


def test_the_pipelines_own_size_is_the_default(folder):
    info = open_folder(folder, size=Size(num_frames=1)).info
    assert (info.height, info.width, info.num_frames) == (480, 832, 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"use_dynamic_cfg": True}, r"use_dynamic_cfg: .* \(allowed options: guidance_scale_2\)"),
        ({"guidance_scale_2": "3"}, r"guidance_scale_2: .* number"),
    ],
)
def test_options_that_the_family_does_not_know_are_refused(folder, options, says):
    with pytest.raises(ModelLoadError, match=says):
        open_folder(folder, options=options)


def test_noise_that_no_seed_decides_is_refused(load):
    stochastic = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    with pytest.raises(ModelLoadError, match="stochastic_sampling"):
        load(Tiny("wan", "stochastic", lambda: wan.tiny_wan(stochastic), wan.SIZE))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (EulerAncestralDiscreteScheduler, "EulerAncestralDiscreteScheduler"),  # draws noise
        (HeunDiscreteScheduler, "HeunDiscreteScheduler"),  # runs the model twice a step
        (partial(DPMSolverMultistepScheduler, algorithm_type="sde-dpmsolver++"), "draws noise"),
    ],
)
def test_a_pipeline_with_a_sampler_that_draws_noise_or_runs_twice_is_refused(load, kind, says):
    with pytest.raises(ModelLoadError, match=says):
        load(Tiny("wan", "sampler", lambda: wan.tiny_wan(kind()), wan.SIZE))


def resampled(loaded, **choice):
    return resample(loaded.model, SchedulerConfig.model_validate(choice))


@pytest.mark.parametrize("name", ["wan-2.2", "cogvideox-5b"])
def test_another_sampler_takes_the_place_of_the_pipelines(load, name):
    """The pipeline's own parameters are inherited, so the latents are those of the pipeline with that sampler."""
    loaded = load(FAMILIES[name])
    model = resampled(loaded, **{"class": "DPMSolverMultistepScheduler", "use_flow_sigmas": name == "wan-2.2"})
    pipeline = copy.copy(loaded.pipeline)
    pipeline.scheduler = copy.deepcopy(model._scheduler)
    other = dataclasses.replace(loaded, model=model, pipeline=pipeline)
    assert_close(other.ours("a cat"), other.theirs("a cat"))
    assert model.switches(model.new_scheduler(6).timesteps) == ({3} if name == "wan-2.2" else frozenset())


@pytest.mark.parametrize("name", ["hunyuan_video-embedded", "hunyuan_video_15-guider", "ltx-0.9", "mochi-1"])
def test_a_schedule_that_the_pipeline_makes_stays(load, name):
    with pytest.raises(ModelLoadError, match="makes its own schedule: leave it out"):
        resampled(load(FAMILIES[name]), **{"class": "UniPCMultistepScheduler"})


def test_parameters_for_a_sampler_that_takes_none_are_refused(load):
    with pytest.raises(ModelLoadError, match="takes no parameters; give a class"):
        resampled(load(FAMILIES["cogvideox-5b"]), timestep_spacing="leading")


@pytest.mark.parametrize("name", ["wan-euler", "cogvideox-5b", "ltx-0.9", "mochi-1"])
def test_timesteps_cannot_be_chosen_where_noise_levels_would_not_follow(load, name):
    """With a shift, diffusers' flow matching shifts the noise levels of given timesteps once more."""
    loaded = load(FAMILIES[name])
    with pytest.raises(CalibrationError, match="takes no timesteps as it is set"):
        LeapReplayer(loaded.model, loaded.config, "tiny").operators()


def test_given_timesteps_are_refused_where_noise_levels_would_not_follow(load):
    with pytest.raises(ModelLoadError, match="FlowMatchEulerDiscreteScheduler takes none"):
        resampled(load(FAMILIES["wan-euler"]), timesteps=[900, 500, 100])


def test_a_folder_without_an_index_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(ModelLoadError, match=r"no model_index\.json"):
        open_folder(tmp_path)
