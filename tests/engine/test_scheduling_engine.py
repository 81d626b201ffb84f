"""The engine's promises and choices on the tiny model, by a cost model that was told what to believe."""

import dataclasses
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest
import torch

from lemica_backend.caller import Caller, Submission
from lemica_backend.cost_model import CostModel, Work
from lemica_backend.denoise import denoise
from lemica_backend.errors import DeadlineExceededError, EngineUnavailableError, InvalidRequestError
from lemica_backend.job import start_job
from lemica_backend.planned import plan_request
from lemica_backend.profile import Profile
from lemica_backend.session import Session
from lemica_backend.types import GenerationResult
from lemica_backend.watch import NoWatcher
from lemica_planner import PlanEntry
from tests.engine.believing import STEPS, Answers, alone, config_of, request, shared


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


def test_a_preview_that_fails_costs_nobody_the_progress(make_engine, model):
    told, outcome = [], Future()

    class Dark:  # decodes the finished video only
        def __getattr__(self, name):
            return getattr(model, name)

        def decode(self, latents, *others):
            if len(told) < STEPS:
                raise RuntimeError("no preview on purpose")
            return model.decode(latents, *others)

    caller = Caller(outcome.set_result, on_step=told.append, preview_every=2)
    make_engine(model=Dark()).submit_all([Submission(request(), caller)])
    assert isinstance(outcome.result(60), GenerationResult)
    assert [(each.step, each.preview) for each in told] == [(step, None) for step in range(STEPS)]


class Notes(NoWatcher):
    def __init__(self):
        self.ticks, self.answers = [], []

    def ticked(self, ticked):
        self.ticks += [(list(ticked.works), ticked.seconds / ticked.steps)] * ticked.steps

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
    info = result.info
    assert notes.answers[0].eta_s * 1e3 == pytest.approx(info["eta_ms"], abs=0.01)
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


def test_a_low_priority_is_served_while_higher_ones_keep_coming(make_engine):
    engine, served, low = make_engine(CostModel()), [], threading.Event()

    def again(outcome):
        served.append(outcome)
        if not low.is_set() and len(served) < 150:
            engine.submit(request(priority=1), on_done=again)

    for _ in range(2):
        engine.submit(request(priority=1), on_done=again)
    engine.submit(request(budget="fast", priority=-(2**31)), on_done=lambda _: low.set())
    assert low.wait(60)
    assert len(served) < 100  # some 10 by its share; without one, after all of them
