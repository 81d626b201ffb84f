import json

import pytest

from lemica_planner import CalibrationError, PlanEntry
from lemica_planner.samplers import OWN, Sampler, Way, parse_sampler

HELD = PlanEntry((0, 2, 4), operators=("noise", "noise"))


def test_names_say_class_and_parameters():
    sampler = parse_sampler("dpmsolver++-trailing-karras")
    assert sampler.scheduler == "DPMSolverMultistepScheduler"
    assert sampler.parameters == {
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "timestep_spacing": "trailing",
        "use_karras_sigmas": True,
    }
    assert parse_sampler("own") == OWN
    assert parse_sampler("unipc").parameters == {"solver_order": 2, "solver_type": "bh2"}


def test_timesteps_of_another_sampler():
    sampler = parse_sampler("dpmsolver++@ddim-linspace")
    asked = []

    def timesteps(other, num_steps):
        asked.append((other.name, num_steps))
        return 998.6, 400.0, 0.0

    resolved = sampler.resolved(3, timesteps)
    assert asked == [("ddim-linspace", 3)]
    assert (resolved.timesteps, resolved.name) == ((999, 400, 0), sampler.name)
    assert Sampler.from_dict(resolved.to_dict()) == resolved
    assert parse_sampler("unipc").resolved(3, timesteps) == parse_sampler("unipc")


@pytest.mark.parametrize("name", ["heun", "unipc@heun", "ddim-backwards", "", "own-karras"])
def test_unknown_names_list_what_there_is(name):
    with pytest.raises(CalibrationError, match=r"no sampler .*dpmsolver\+\+.*-trailing"):
        parse_sampler(name)


@pytest.mark.parametrize(
    ("way", "kind", "cost", "name"),
    [
        (Way(parse_sampler("unipc"), 8), "fewer", 8, "unipc, 8 steps"),
        (Way(parse_sampler("ddim"), 5, HELD, "measured"), "timesteps", 3, "ddim, 5 steps, noise (measured)"),
        (Way(parse_sampler("unipc"), 5, HELD, "even"), "cached", 3, "unipc, 5 steps, noise (even)"),
        (Way(parse_sampler("ddim"), 5, PlanEntry((0, 4)), "even"), "cached", 2, "ddim, 5 steps, residual (even)"),
        (
            Way(parse_sampler("ddim"), 5, PlanEntry((0, 2, 4), operators=("output", "residual")), "measured"),
            "cached",
            3,
            "ddim, 5 steps, output+residual (measured)",
        ),
        (Way(Sampler("x", "Y", {}, (9, 4)), 2), "fewer", 2, "x, 2 steps"),
        (Way(Sampler("x", "Y", {}, (9, 4)), 2, plan="measured"), "timesteps", 2, "x, 2 steps (measured)"),
    ],
)
def test_ways_know_their_kind_cost_and_name(way, kind, cost, name):
    assert (way.kind, way.cost, way.name) == (kind, cost, name)
    again = Way.from_dict(json.loads(json.dumps(way.to_dict())))
    assert again == way
    assert again.key == way.key


def test_the_plan_is_part_of_the_key():
    sampler = parse_sampler("ddim")
    keys = {Way(sampler, 5).key, Way(sampler, 5, HELD, "even").key, Way(sampler, 5, HELD, "measured").key}
    assert len(keys) == 3
