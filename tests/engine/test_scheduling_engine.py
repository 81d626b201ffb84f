"""The engine's promises and choices on the tiny model, by a cost model that was told what to believe."""

import dataclasses
import threading
import time

import numpy as np
import pytest
import torch

from lemica_backend.caller import Caller, Submission
from lemica_backend.config import ModelConfig
from lemica_backend.cost_model import CostModel, Work
from lemica_backend.denoise import denoise
from lemica_backend.engine import Engine, load_engine
from lemica_backend.errors import DeadlineExceededError, EngineUnavailableError, InvalidRequestError
from lemica_backend.job import start_job
from lemica_backend.planned import plan_request
from lemica_backend.profile import Profile, measure_profile
from lemica_backend.session import Session
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, PlanEntry

STEPS = 6


class Told(CostModel):
    """Believes what it was told, whatever it measures: a computed step takes a second, sharing pays or not."""

    def __init__(self, seconds_of_rows):
        super().__init__()
        for _ in range(3):
            for rows, seconds in seconds_of_rows.items():
                super().observe([Work("compute", rows)], seconds)
                super().observe([Work("residual", rows)], seconds / 1000)

    def observe(self, works, seconds):
        pass


def alone():
    return Told({1: 0.5, 2: 1.0, 4: 2.0, 8: 4.0})


def shared():
    return Told({1: 0.9, 2: 1.0, 4: 1.1, 8: 1.2})


def config_of(**sections):
    defaults = {"num_inference_steps": STEPS, "guidance_scale": 4.0}
    return ModelConfig.model_validate({"defaults": defaults} | sections)


@pytest.fixture
def make_engine(model, plan):
    engines = []

    def make(cost=None, *, plan=plan, model=model, sizes=None, watcher=None, **sections):
        profile = Profile(cost or alone(), sizes or {})
        engines.append(Engine(model, config_of(**sections), plan, profile=profile, watcher=watcher))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def request(prompt="a cat", **options):
    return GenerationRequest(prompt, **{"seed": 1, **options})


def test_a_deadline_that_cannot_be_met_is_refused_with_the_earliest_that_can(make_engine):
    engine = make_engine()
    with pytest.raises(EngineUnavailableError, match=r"deadline_ms is 5000, .* can meet is 660\d:") as caught:
        engine.submit(request(deadline_ms=5000), on_done=print)
    assert engine.load().waiting == 0
    earliest = int(str(caught.value).split(" can meet is ")[1].split(":")[0])
    assert engine.generate(request(deadline_ms=earliest)).info["chosen_budget"] == STEPS


def test_before_anything_is_known_nothing_is_refused_or_predicted(make_engine):
    engine = make_engine(CostModel())
    info = engine.generate(request(deadline_ms=60_000)).info
    assert (info["eta_ms"], info["eta_error_ms"]) == (None, None)
    assert engine.generate(request()).info["eta_ms"] > 0  # it has learned


@pytest.mark.parametrize(
    ("deadline_ms", "budget", "chosen"),
    [(None, "fast..full", 6), (7000, "fast..full", 6), (6500, "fast..full", 4), (4000, "fast..slow", 3)],
)
def test_a_range_gets_the_largest_budget_that_meets_the_deadline(make_engine, deadline_ms, budget, chosen):
    engine = make_engine(scheduling={"replan": False})
    info = engine.generate(request(budget=budget, deadline_ms=deadline_ms)).info
    assert (info["budget"], info["chosen_budget"], len(info["computed_steps"])) == (budget, chosen, chosen)
    assert (info["replanned"], info["eta_ms"]) == ([], pytest.approx(chosen * 1000, abs=20))


def test_the_floor_is_what_a_refusal_speaks_of(make_engine):
    with pytest.raises(EngineUnavailableError, match=r"budget 'fast\.\.full' can meet is 33\d\d:"):
        make_engine().submit(request(budget="fast..full", deadline_ms=1000), on_done=print)


class Held:
    """A model that waits at one of its stems until it is released, and then runs."""

    def __init__(self, model):
        self._model = model
        self.stems_before = 0
        self.released = threading.Event()
        self.reached = threading.Event()

    def __getattr__(self, name):
        return getattr(self._model, name)

    def stem(self, *inputs):
        self.stems_before -= 1
        if self.stems_before < 0:
            self.reached.set()
            assert self.released.wait(60)
        return self._model.stem(*inputs)


@pytest.fixture
def held(model):
    held = Held(model)
    yield held
    held.released.set()


class Answers:
    def __init__(self):
        self.outcomes = {}
        self._changed = threading.Condition()

    def of(self, name):
        def take(outcome):
            with self._changed:
                assert name not in self.outcomes
                self.outcomes[name] = outcome
                self._changed.notify_all()

        return take

    def wait(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.outcomes) >= count, 60)
        return self.outcomes


def test_the_queue_counts_and_load_moves_a_range_towards_its_floor(make_engine, held):
    engine, answers = make_engine(model=held, scheduling={"policy": "fcfs", "replan": False}), Answers()
    engine.submit(request(), on_done=answers.of("first"))
    assert held.reached.wait(60)
    with pytest.raises(EngineUnavailableError, match=r"can meet is 132\d\d:"):
        engine.submit(request(deadline_ms=7000), on_done=print)
    engine.submit(request(budget="fast..full"), on_done=answers.of("range"))  # waits as long as it runs: the middle
    assert engine.load().backlog_s == pytest.approx(6 + 4, abs=0.1)
    held.released.set()
    info = answers.wait(2)["range"].info
    assert info["chosen_budget"] == STEPS  # nobody waits behind it when it starts


def test_a_request_behind_gets_what_a_range_can_give_up(make_engine, held):
    engine, answers = make_engine(model=held, scheduling={"policy": "fcfs"}), Answers()
    engine.submit(request(budget="fast..full"), on_done=answers.of("ahead"))
    assert held.reached.wait(60)
    engine.submit(request(budget="full", deadline_ms=10_500), on_done=answers.of("promised"))  # 6 + 6 s do not fit
    held.released.set()
    outcomes = answers.wait(2)
    ahead = outcomes["ahead"].info
    assert (ahead["chosen_budget"], len(ahead["computed_steps"])) in {(6, 3), (6, 4), (6, 5)}
    assert ahead["replanned"][0][1] == len(ahead["computed_steps"])
    assert outcomes["promised"].info["budget"] == "full"


def test_more_work_is_not_promised_than_floors_leave_room_for(make_engine, held):
    engine, answers = make_engine(model=held, scheduling={"policy": "fcfs"}), Answers()
    engine.submit(request(budget="fast..full"), on_done=answers.of("ahead"))
    assert held.reached.wait(60)
    with pytest.raises(EngineUnavailableError):
        engine.submit(request(budget="full", deadline_ms=9_000), on_done=print)
    held.released.set()
    answers.wait(1)


def rich_plan(plan):
    paths = {2: (0, 5), 3: (0, 2, 5), 4: (0, 2, 4, 5), 5: (0, 1, 2, 4, 5)}
    entries = {budget: PlanEntry(steps, (9.0 - budget, *[0.0] * (budget - 2))) for budget, steps in paths.items()}
    return dataclasses.replace(plan, entries=entries, names={"fast": 3})


def alone_on(model, computed, plan):
    """Return the latents of a request that follows these computed steps from the beginning, by itself."""
    planned = plan_request(request(budget="full"), info=model.info, config=config_of(), plan=plan)
    entry = PlanEntry(tuple(computed))
    planned = dataclasses.replace(planned, computed=frozenset(computed), reuse=entry.reuse("residual"))
    with torch.inference_mode():
        job = start_job(model, planned)
    while not job.is_finished:
        denoise(model, [job])
    return job.latents.numpy()


def test_a_request_planned_anew_ends_as_if_it_had_been_planned_so(make_engine, held, plan):
    engine, answers = make_engine(model=held, plan=rich_plan(plan), scheduling={"policy": "fcfs"}), Answers()
    held.stems_before = 2  # steps 0 and 1
    engine.submit(request(budget="3..full"), on_done=answers.of("mine"))
    assert held.reached.wait(60)
    for number in range(20):
        engine.submit(request(budget="2"), on_done=answers.of(number))
    held.released.set()
    mine = answers.wait(21)["mine"]
    assert (mine.info["chosen_budget"], mine.info["computed_steps"]) == (6, [0, 1, 2, 5])
    assert mine.info["replanned"] == [[3, 4]]
    assert mine.info["predicted_error"] == 6.0  # the edge from 2 to 5 is in the plan's path of 3 steps
    np.testing.assert_allclose(mine.latents, alone_on(held, mine.info["computed_steps"], plan), atol=1e-5)


def test_a_request_goes_up_when_others_leave(make_engine, held, plan):
    engine, answers = make_engine(model=held, plan=rich_plan(plan), scheduling={"policy": "fcfs"}), Answers()
    gone = threading.Event()
    engine.submit(request(budget="2"), on_done=answers.of("first"))
    assert held.reached.wait(60)
    engine.submit(request(budget="3..full"), on_done=answers.of("mine"), on_step=lambda progress: gone.set())
    for number in range(20):
        engine.submit(request(budget="2"), on_done=answers.of(number), is_cancelled=gone.is_set)
    held.released.set()
    info = answers.wait(22)["mine"].info
    assert (info["chosen_budget"], info["computed_steps"]) == (3, [0, 2, 3, 4, 5])
    assert info["replanned"] == [[3, 5]]


@pytest.mark.parametrize("policy", ["fcfs", "srpt", "edf"])
def test_a_range_without_a_choice_is_a_budget(make_engine, policy):
    info = make_engine(scheduling={"policy": policy}).generate(request(budget="fast..fast")).info
    assert (info["chosen_budget"], info["replanned"]) == (3, [])


def test_progress_is_told_after_every_step(make_engine):
    told, done = [], threading.Event()
    make_engine().submit(request(budget="slow"), on_done=lambda outcome: done.set(), on_step=told.append)
    assert done.wait(60)
    assert [(each.step, each.num_steps, each.is_computed) for each in told] == [
        (step, STEPS, step in (0, 1, 3, 5)) for step in range(STEPS)
    ]
    assert [round(each.eta_ms / 1000) for each in told] == [3, 2, 2, 1, 1, 0]


def test_what_watchers_and_callers_raise_ends_nothing(make_engine):
    class Rude:
        ticked = answered = None  # not to be called

    done = threading.Event()
    make_engine(watcher=Rude()).submit(request(), on_done=lambda outcome: done.set(), on_step=lambda progress: 1 / 0)
    assert done.wait(60)


class Notes:
    def __init__(self):
        self.ticks, self.answers = [], []

    def ticked(self, works, seconds):
        self.ticks.append((works, seconds))

    def answered(self, answered):
        self.answers.append(answered)


def test_a_watcher_hears_of_every_tick_and_every_answer(make_engine):
    notes = Notes()
    engine = make_engine(watcher=notes)
    result = engine.generate(request(budget="fast"))
    engine.close()
    assert [works for works, _ in notes.ticks] == [
        [Work("compute" if step in (0, 2, 5) else "residual", 2)] for step in range(STEPS)
    ]
    assert notes.answers[0].outcome is result
    info = result.info
    assert notes.answers[0].eta_ms == pytest.approx(info["eta_ms"], abs=0.01)
    assert info["eta_error_ms"] == pytest.approx(info["timings_ms"]["total"] - info["eta_ms"], abs=0.01)


def test_a_paused_request_keeps_its_state_and_says_how_long(make_engine, held):
    engine, answers = make_engine(model=held), Answers()
    engine.submit(request(seed=3), on_done=answers.of("long"))
    assert held.reached.wait(60)
    engine.submit(request(budget="fast", seed=4, priority=1), on_done=answers.of("short"))
    held.released.set()
    outcomes = answers.wait(2)
    assert list(outcomes) == ["short", "long"]
    timings = outcomes["long"].info["timings_ms"]
    assert timings["paused"] >= outcomes["short"].info["timings_ms"]["denoise"]
    parts = sum(timings[name] for name in ("queue", "encode_text", "denoise", "paused", "decode"))
    assert parts == pytest.approx(timings["total"], abs=1.0)
    assert np.array_equal(outcomes["long"].latents, make_engine().generate(request(seed=3)).latents)


def test_requests_share_a_tick_where_that_pays(make_engine, held):
    notes = Notes()
    engine, answers = make_engine(shared(), model=held, watcher=notes), Answers()
    engine.submit(request(budget="fast"), on_done=answers.of("first"))
    assert held.reached.wait(60)
    for name in ("second", "third"):
        engine.submit(request(budget="fast"), on_done=answers.of(name))
    held.released.set()
    answers.wait(3)
    assert max(len(works) for works, _ in notes.ticks) >= 2
    rows = {len({work.kind for work in works}) for works, _ in notes.ticks}
    assert rows == {1}


def test_rows_of_one_request_are_taken_all_or_none(make_engine, held):
    engine, answers = make_engine(model=held, limits={"max_queue": 3}), Answers()
    engine.submit(request(), on_done=answers.of("running"))
    assert held.reached.wait(60)
    engine.submit_all(rows_of(2, answers, "first"))
    with pytest.raises(EngineUnavailableError, match="2 requests are waiting, the limit is 3; 2 more are too many"):
        engine.submit_all(rows_of(2, answers, "second"))
    with pytest.raises(InvalidRequestError, match="4 rows are more than may wait here, 3"):
        engine.submit_all(rows_of(4, answers, "third"))
    assert engine.load().waiting == 2
    held.released.set()
    assert sorted(answers.wait(3)) == ["first 0", "first 1", "running"]


def test_one_row_that_is_refused_refuses_all_and_leaves_nothing(make_engine, held):
    engine, answers = make_engine(model=held, scheduling={"policy": "fcfs"}), Answers()
    engine.submit(request(), on_done=answers.of("running"))
    assert held.reached.wait(60)
    with pytest.raises(EngineUnavailableError, match=r"^row 1: deadline_ms is 15000, .* can meet is 19"):
        engine.submit_all(rows_of(2, answers, "late", deadline_ms=15_000))  # 6 + 6 s would be in time, 6 + 12 are not
    bad = Submission(request(budget="quick"), Caller(print))
    with pytest.raises(InvalidRequestError, match=r"^row 2: .*'quick'"):
        engine.submit_all([*rows_of(2, answers, "bad"), bad])
    assert (engine.load().waiting, engine.load().started) == (0, 1)
    held.released.set()
    assert list(answers.wait(1)) == ["running"]


def rows_of(count, answers, name, **options):
    return [Submission(request(**options), Caller(answers.of(f"{name} {row}"))) for row in range(count)]


def test_waiting_to_be_accepted_counts(make_engine):
    engine, answers = make_engine(), Answers()
    sending = threading.Thread(target=engine.submit, args=[request(budget="3")], kwargs={"on_done": answers.of("a")})
    with engine._accepting:
        sending.start()
        time.sleep(0.3)
    info = answers.wait(1)["a"].info
    assert info["timings_ms"]["total"] > 300
    assert info["timings_ms"]["queue"] > 290


def test_a_deadline_beyond_the_time_limit_is_promised_only_within_it(make_engine):
    engine = make_engine(limits={"timeout_s": 5.0})
    with pytest.raises(EngineUnavailableError, match=r"can meet is 660\d, and 5000 is the request's time limit"):
        engine.submit(request(deadline_ms=100_000), on_done=print)
    info = engine.generate(request(budget="fast..full", deadline_ms=100_000)).info
    assert info["chosen_budget"] == 4


def test_an_answer_is_given_once(model, config, plan):
    outcomes = []
    planned = plan_request(request(), info=model.info, config=config, plan=plan)
    profile = Profile(alone())
    session = Session(planned, Caller(outcomes.append), number=0, arrived_s=0.0, profile=profile, timeout_s=1.0)
    assert session.drop_if_unwanted()
    session.fail(EngineUnavailableError("the engine stopped"))
    assert [type(outcome) for outcome in outcomes] == [DeadlineExceededError]


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
