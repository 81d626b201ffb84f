"""Skipped steps in a row: the worker takes them at once where nobody follows them, and nothing else changes."""

import pytest
import torch

from lemica_backend.cost_model import Work
from lemica_backend.errors import RequestCancelledError
from lemica_backend.fair_shares import FairShares
from lemica_backend.job import start_job
from lemica_backend.local_worker import LocalWorker
from lemica_backend.planned import plan_request
from lemica_backend.ranking import Ranking
from lemica_backend.scheduler import Room, Scheduler
from lemica_backend.stepping import step_jobs
from tests.engine.believing import STEPS, Answers, alone, request
from tests.engine.clockwork import FLAT, LINEAR, Request, known_cost
from tests.engine.faulty import BROKEN, NAN, Faulty

FAST = [1, 1, 1, 2, 1]  # steps of each message: of six, the plan computes 0, 2 and 5


@pytest.fixture
def start(model, config, plan):
    def start(model=model, **options):
        planned = plan_request(request(budget="fast", **options), info=model.info, config=config, plan=plan)
        return start_job(model, planned)

    return start


@pytest.fixture
def messages(monkeypatch):
    """Return what the engine asks of its worker: the numbers and the steps taken of every message."""
    asked = []

    def step(self, numbers, most=1, *, own=LocalWorker.step):
        stepped = own(self, numbers, most)
        asked.append((list(numbers), stepped.taken))
        return stepped

    monkeypatch.setattr(LocalWorker, "step", step)
    return asked


def test_steps_at_once_are_those_steps_bit_by_bit(model, start):
    at_once, one_by_one = ({seed: start(seed=seed) for seed in (1, 2)} for _ in range(2))
    stepped = step_jobs(model, at_once, STEPS)
    assert {step_jobs(model, one_by_one).taken for _ in range(STEPS)} == {1}
    assert (stepped.taken, dict(stepped.failures)) == (STEPS, {})
    for seed, job in at_once.items():
        assert job.is_finished
        assert torch.equal(job.latents, one_by_one[seed].latents)
        assert [computed for _, computed in job.step_ms] == [step in (0, 2, 5) for step in range(STEPS)]


def test_no_step_is_taken_after_one_that_failed(model, start):
    faulty = Faulty(model)
    jobs = {1: start(faulty, prompt=BROKEN), 2: start(faulty)}
    stepped = step_jobs(faulty, jobs, STEPS)
    assert (stepped.taken, set(stepped.failures)) == (1, {1})
    assert jobs[2].step == 1


def test_latents_that_are_not_finite_are_found_at_the_end_of_a_run(model, start):
    faulty = Faulty(model)
    jobs = {1: start(faulty, prompt=NAN), 2: start(faulty)}
    stepped = step_jobs(faulty, jobs, 3)
    assert (stepped.taken, set(stepped.failures)) == (3, {1})
    assert "not finite (NaN or infinity) after step 2" in str(stepped.failures[1])
    assert jobs[2].step == 3


def test_the_engine_asks_for_skipped_steps_in_a_row_at_once(make_engine, messages):
    engine = make_engine()
    info = engine.generate(request(budget="fast")).info
    assert [taken for _, taken in messages] == FAST
    assert [computed for _, computed in info["step_ms"]] == [step in (0, 2, 5) for step in range(STEPS)]


def test_who_follows_a_request_hears_of_every_step_when_it_is_taken(make_engine, messages):
    engine, answers, told = make_engine(), Answers(), []
    engine.submit(
        request(budget="fast"),
        on_done=answers.of("followed"),
        on_step=lambda progress: told.append((progress.step, len(messages))),
    )
    answers.wait(1)
    assert told == [(step, step + 1) for step in range(STEPS)]


def test_who_waits_behind_a_request_changes_nothing(make_engine, messages):
    engine, answers = make_engine(), Answers()
    for seed in range(3):
        engine.submit(request(budget="fast", seed=seed), on_done=answers.of(seed))
    answers.wait(3)
    by_number = {}
    for (number,), taken in messages:
        by_number.setdefault(number, []).append(taken)
    assert list(by_number.values()) == [FAST] * 3


def test_a_cancel_is_seen_after_the_steps_that_are_under_way(make_engine, model, messages):
    class Leaving:
        """Its client leaves at the first of two skipped steps."""

        stems = 0

        def __getattr__(self, name):
            return getattr(model, name)

        def stem(self, *inputs):
            self.stems += 1
            return model.stem(*inputs)

    leaving, answers = Leaving(), Answers()
    engine = make_engine(model=leaving)
    engine.submit(request(budget="fast"), on_done=answers.of("gone"), is_cancelled=lambda: leaving.stems >= 4)
    assert isinstance(answers.wait(1)["gone"], RequestCancelledError)
    assert [taken for _, taken in messages] == FAST[:4]


@pytest.mark.parametrize(
    ("rows", "skipped", "most", "expected"),
    [([2], 1 / 16, 9, 9), ([2], 1 / 16, 40, 16), ([2], 0.4, 9, 2), ([2], 2.0, 9, 1), ([2, 2], 1 / 16, 40, 8)],
)
def test_skipped_steps_at_once_take_no_longer_than_a_computed_one(rows, skipped, most, expected):
    cost = known_cost(LINEAR)
    for count, seconds in LINEAR.items():
        cost.observe([Work("output", count)], skipped * seconds)
    assert cost.ticks_in_a_forward([Work("output", each) for each in rows], most) == expected


def test_skipped_steps_of_which_nothing_is_known_are_taken_one_by_one():
    assert known_cost(LINEAR).ticks_in_a_forward([Work("noise", 2)], 9) == 1
    assert alone().ticks_in_a_forward([Work("compute", 2)], 0) == 1


def test_where_one_request_waits_for_others_every_tick_is_chosen():
    cost, shares = known_cost(FLAT), FairShares()
    scheduler = Scheduler(Ranking("fcfs", 0.2, 0.1), cost, align_ticks=3)
    first, late = Request(0, "CrrrC", done=4, is_started=True), Request(1, "CrrrC", done=1, is_started=True)
    held = []
    while late.done < 5:
        standings = [each.standing(cost) for each in (first, late)]
        chosen = scheduler.choose(standings, shares.shares(0.0), Room(0, 0.0), now=0.0)
        held.append(([each.number for each in chosen], scheduler.is_holding))
        late.done += 1
    assert held == [([1], True)] * 3 + [([0, 1], False)]
