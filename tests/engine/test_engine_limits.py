"""What an engine reserves, measures and counts: bytes of caches, costs at load, time of clients."""

import dataclasses
import threading

import pytest

from lemica_backend.cost_model import Work
from lemica_backend.engine import Engine, load_engine
from lemica_backend.errors import EngineUnavailableError, InvalidRequestError
from lemica_backend.fair_shares import FairShares
from lemica_backend.measuring import measure_profile
from lemica_backend.planned import plan_request
from lemica_planner import CachePlan, PlanEntry
from tests.engine.believing import STEPS, Answers, Held, config_of, request, shared

OPERATORS = [
    *["residual", "residual-linear", "residual-quadratic", "output", "output-linear", "output-quadratic"],
    *["noise", "noise-linear"],
]


@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
@pytest.mark.parametrize("operator", OPERATORS)
def test_what_is_reserved_for_a_cache_is_exactly_what_it_comes_to_hold(model, plan, operator, guidance_scale):
    """Sizes are measured with the default guidance; a request without guidance has one branch."""
    provenance = dataclasses.replace(plan.provenance, operator=operator, guidance_scale=None)
    plan = CachePlan.from_steps(provenance, {4: (0, 1, 3, 5), 2: (0, 5)})
    config = config_of(scheduling={"warm_up_s": 0}, limits={"cache_bytes": 10**9})
    profile = measure_profile(model, config, plan)
    engine = Engine(model, config, plan, profile=profile)
    for budget in ("4", "2", "full", "2..4"):
        asked, held, done = request(budget=budget, guidance_scale=guidance_scale), [], threading.Event()
        engine.submit(
            asked,
            on_done=lambda outcome, done=done: done.set(),
            on_step=lambda _, held=held: held.append(engine.load()),
        )
        assert done.wait(60)
        planned = plan_request(asked, info=model.info, config=config, plan=plan)
        assert max(load.cached_bytes for load in held) == profile.cache_bytes(planned)
        assert {load.reserved_bytes for load in held} == {profile.cache_bytes(planned)}
    engine.close()


def test_operators_that_keep_different_states_are_counted_together(model, plan):
    """A path of this plan keeps two residuals of each branch and one output; another one the output alone."""
    provenance = dataclasses.replace(plan.provenance, guidance_scale=None)
    mixed = PlanEntry((0, 1, 3, 5), operators=("output", "residual-linear", "output"))
    entries = {4: mixed, 3: PlanEntry((0, 2, 5), operators=("output", "output"))}
    plan = CachePlan(provenance=provenance, entries=entries, names={})
    config = config_of(scheduling={"warm_up_s": 0}, limits={"cache_bytes": 10**9})
    profile = measure_profile(model, config, plan)
    residual, output = profile.value_bytes["residual"], profile.value_bytes["output"]
    engine = Engine(model, config, plan, profile=profile)
    for budget, guidance_scale, expected in (
        ("4", 4.0, 4 * residual + output),
        ("4", 1.0, 2 * residual + output),
        ("3", 4.0, output),
        ("3..4", 4.0, 4 * residual + output),
        ("3..3", 4.0, output),
    ):
        held, answers = [], Answers()
        asked = request(budget=budget, guidance_scale=guidance_scale)
        engine.submit(asked, on_done=answers.of("it"), on_step=lambda _, held=held: held.append(engine.load()))
        assert answers.wait(1)["it"].info["chosen_budget"] in (3, 4)
        assert max(load.cached_bytes for load in held) == expected
        assert {load.reserved_bytes for load in held} == {expected}
    engine.close()


def test_caches_of_all_started_requests_stay_within_the_limit(make_engine, held):
    one = 2 * 16 * 36 * 24 * 4  # branches, frames, patches, width, float32
    limits = {"cache_bytes": 2 * one, "max_active": 8}
    loads, answers = [], Answers()
    engine = make_engine(shared(), model=held, sizes={"residual": one // 2}, limits=limits)
    for number in range(6):
        engine.submit(
            request(budget="slow", seed=number),
            on_done=answers.of(number),
            on_step=lambda progress: loads.append(engine.load()),
        )
    held.released.set()
    answers.wait(6)
    assert max(load.cached_bytes for load in loads) == 2 * one
    assert max(load.reserved_bytes for load in loads) == 2 * one
    assert {load.cache_limit_bytes for load in loads} == {2 * one}


def test_a_cache_that_never_fits_is_refused_with_both_sizes(make_engine):
    engine = make_engine(sizes={"residual": 600}, limits={"cache_bytes": 1000})
    with pytest.raises(InvalidRequestError, match=r"1200 bytes; this server allows 1000"):
        engine.submit(request(budget="slow"), on_done=print)
    assert engine.generate(request(budget="full")).info["chosen_budget"] == STEPS


def test_a_loaded_engine_knows_costs_and_sizes(weights, plan):
    engine = load_engine(weights.parent, config_of(), plan.to_json())
    assert engine.generate(request(budget="fast")).info["eta_ms"] > 0
    engine.close()


def test_measuring_at_load_stops_at_max_active_and_can_be_left_out(model, plan):
    cost = measure_profile(model, config_of(limits={"max_active": 2}, scheduling={"warm_up_s": 60}), plan).cost
    per_row = [cost.seconds(Work("compute", rows)) for rows in (2, 4, 8)]
    assert per_row[2] >= 2 * per_row[1]  # no more than a guess
    assert cost.seconds(Work("decode", 1)) > 0
    assert cost.seconds(Work("residual", 2)) < cost.seconds(Work("compute", 2))
    assert not measure_profile(model, config_of(scheduling={"warm_up_s": 0}), plan).cost.is_ready


def test_however_short_the_measuring_is_decoding_is_known(model, plan):
    cost = measure_profile(model, config_of(scheduling={"warm_up_s": 1e-6}), plan).cost
    assert cost.seconds(Work("decode", 1)) > 0
    assert cost.seconds(Work("residual", 2)) != cost.seconds(Work("compute", 2))


def test_a_model_that_fails_while_it_is_measured_is_served_all_the_same(model, caplog):
    class Broken(Held):
        def blocks(self, *inputs):
            raise RuntimeError("broken on purpose")

    broken = Broken(model)
    broken.released.set()
    assert not measure_profile(broken, config_of(), None).cost.is_ready
    assert "broken on purpose" in caplog.text


def test_the_line_is_limited_by_what_its_caches_will_need(make_engine, held):
    one = 2 * 16 * 36 * 24 * 4
    limits = {"max_active": 1, "max_queue_cache_bytes": 2 * one}
    engine, answers = make_engine(model=held, sizes={"residual": one // 2}, limits=limits), Answers()
    engine.submit(request(budget="fast"), on_done=answers.of("running"))
    assert held.reached.wait(60)
    for name in ("first", "second"):
        engine.submit(request(budget="fast"), on_done=answers.of(name))
    with pytest.raises(EngineUnavailableError, match=rf"will need {2 * one} bytes, and this one {one}; the limit"):
        engine.submit(request(budget="fast"), on_done=print)
    engine.submit(request(budget="full"), on_done=answers.of("without a cache"))
    held.released.set()
    assert len(answers.wait(4)) == 4


def test_text_and_decoding_count_for_the_client(make_engine, monkeypatch):
    charged = []
    monkeypatch.setattr(FairShares, "charge", lambda self, one, seconds: charged.append((one.client, seconds)))
    engine = make_engine()
    timings = engine.generate(request(client_id="a")).info["timings_ms"]
    engine.close()
    assert {client for client, _ in charged} == {"a"}
    assert len(charged) == 1 + STEPS + 1
    ends = [charged[0][1] * 1e3, charged[-1][1] * 1e3]
    assert ends == pytest.approx([timings["encode_text"], timings["decode"]], abs=0.01)
