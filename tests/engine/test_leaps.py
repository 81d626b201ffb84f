"""Bigger steps of a sampler against whole runs on the timesteps that are left."""

import numpy as np
import pytest

from lemica_backend.config import ModelConfig, SchedulerConfig
from lemica_backend.leaps import LEAP
from lemica_backend.models import resample
from lemica_backend.replay import EngineReplayer
from lemica_planner import CalibrationError, PlanEntry, Sample, Segment
from lemica_planner.samplers import parse_sampler
from lemica_planner.step_search import SearchSpace, own_references, search
from lemica_planner.way_plans import Planning
from tests.engine.test_schedulers import latents_of

FINE = 10
SAMPLE = Sample("a cat", 3)
SAMPLERS = {"dpmsolver++-trailing": 1, "euler-trailing": 0}  # and how far they look back


@pytest.fixture(scope="module")
def replayer(model, config):
    return EngineReplayer(model, config, "tiny")


def whole_run(model, replayer, name, steps):
    """Return the latents of the sampler on these steps of its fine schedule."""
    sampler = parse_sampler(name)
    timesteps = [round(replayer.timesteps(sampler, FINE)[step]) for step in steps]
    given = {"class": sampler.scheduler, "timesteps": timesteps, **sampler.parameters}
    config = ModelConfig.model_validate({"defaults": {"num_inference_steps": len(steps)}})
    return latents_of(resample(model, SchedulerConfig.model_validate(given)), config)


@pytest.fixture(scope="module", params=SAMPLERS)
def leaping(request, model, replayer):
    """Return the sampler's name, its session, and its fine latents."""
    session = replayer.leaps(parse_sampler(request.param), FINE).open(SAMPLE)
    return request.param, session, whole_run(model, replayer, request.param, range(FINE))


@pytest.mark.parametrize(("start", "end"), [(0, 2), (2, 5), (7, 9)])
def test_one_leap_is_a_run_without_the_steps_between(leaping, model, replayer, start, end):
    name, session, fine = leaping
    history = (start - 1,) if start and SAMPLERS[name] else ()
    left = [step for step in range(FINE) if not start < step < end]
    expected = np.abs(whole_run(model, replayer, name, left) - fine).mean()
    assert session.errors([Segment(start, end, LEAP, history)])[0] == pytest.approx(expected, rel=1e-3)


def test_a_path_is_a_run_on_its_steps(leaping, model, replayer):
    name, session, fine = leaping
    paths = [(0, 3, 5, 9), (0, 1, 2, 9)]
    expected = [np.abs(whole_run(model, replayer, name, path) - fine).mean() for path in paths]
    assert session.outcomes([PlanEntry(path) for path in paths]) == pytest.approx(expected, rel=1e-3)


def test_the_history_matters_to_a_solver_with_a_memory(replayer):
    session = replayer.leaps(parse_sampler("dpmsolver++-trailing"), FINE).open(SAMPLE)
    near, far = session.errors([Segment(4, 7, LEAP, (3,)), Segment(4, 7, LEAP, (1,))])
    assert abs(near - far) > 1e-2 * near


def test_the_drift_is_the_difference_where_a_leap_lands(leaping):
    name, session, _ = leaping
    history = (3,) if SAMPLERS[name] else ()
    short, long = session.drifts([Segment(4, 6, LEAP, history), Segment(4, 8, LEAP, history)])
    assert 0 < short < long
    assert session.drifts([Segment(4, 5, LEAP, history)])[0] < 1e-5


def test_eulers_leaps_are_ddims_held_noise(replayer):
    held = replayer.resampled(parse_sampler("ddim-trailing"), FINE).open(SAMPLE)
    leaps = replayer.leaps(parse_sampler("euler-trailing"), FINE).open(SAMPLE)
    edges = [(1, 6), (2, 6), (4, 6)]
    expected = held.errors([Segment(*edge, "noise") for edge in edges])
    assert leaps.errors([Segment(*edge, LEAP) for edge in edges]) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("name", ["unipc-trailing", "dpmsolver++-karras"])
def test_samplers_that_take_no_timesteps_are_refused(replayer, name):
    with pytest.raises(CalibrationError, match="takes no timesteps"):
        replayer.leaps(parse_sampler(name), FINE).operators()


def test_chosen_timesteps_in_a_search(replayer, tmp_path):
    space = SearchSpace((4,), leaping=(parse_sampler("dpmsolver++-trailing"),), steps=(FINE,))
    references = own_references(replayer, parse_sampler("dpmsolver++-trailing"), 20)
    planning = Planning((Sample("a dog", 0),), tmp_path)
    known = search(replayer, [SAMPLE], space, references, planning=planning, journal=tmp_path / "rows")
    (way,) = (way for way in known.ways if way.kind == "timesteps")
    assert way.cost == 4 == len(way.sampler.timesteps)
    assert way.sampler.timesteps[0] == 999
