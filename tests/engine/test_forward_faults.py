"""Exceptions, too little memory and NaN in one forward, and bugs of the engine: each ends what it concerns, no more."""

import itertools
import threading

import numpy as np
import pytest
import torch

from lemica_backend.admission import Admission
from lemica_backend.config import SchedulerConfig
from lemica_backend.engine import Engine
from lemica_backend.errors import GenerationError
from lemica_backend.job import start_job
from lemica_backend.models import resample
from lemica_backend.planned import plan_request
from lemica_backend.profile import Profile
from lemica_backend.row_limit import RowLimit
from lemica_backend.scheduler import Scheduler
from lemica_backend.step_cache import StepCache
from lemica_backend.stepping import step_jobs
from lemica_backend.ticking import Ticker
from lemica_backend.types import GenerationRequest, GenerationResult
from lemica_planner import CachePlan, Provenance
from tests.engine.believing import Answers, Held, config_of, shared
from tests.engine.faulty import BROKEN, NAN, Faulty

PROMPTS = ["a cat", "a dog", "a bird", "a long story about a fish and a bear"]


@pytest.fixture
def crowd(model, plan):
    """Serve prompts that share their ticks; return the outcomes by prompt, the engine, and the model."""
    engines = []

    def serve(prompts, most_rows=None):
        faulty = Faulty(model, most_rows)
        held = Held(faulty)
        engine = Engine(held, config_of(), plan, profile=Profile(shared()))
        engines.append(engine)
        answers = Answers()
        engine.submit(GenerationRequest("the first", seed=0, budget="fast"), on_done=answers.of("the first"))
        assert held.reached.wait(60)
        for seed, prompt in enumerate(prompts):
            engine.submit(GenerationRequest(prompt, seed=seed), on_done=answers.of(prompt))
        held.released.set()
        return answers.wait(1 + len(prompts)), engine, faulty

    yield serve
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def alone(model, plan):
    engine = Engine(model, config_of(), plan)
    yield lambda prompt, seed: engine.generate(GenerationRequest(prompt, seed=seed)).latents
    engine.close()


@pytest.mark.parametrize(("bad", "message"), [(BROKEN, "broken on purpose"), (NAN, "not finite.* after step 0")])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_fault_in_one_row_leaves_its_neighbours_as_if_alone(crowd, alone, bad, message, place):
    prompts = [*PROMPTS[:place], bad, *PROMPTS[place:]]
    outcomes, engine, faulty = crowd(prompts)
    assert max(faulty.rows) >= 6  # they did share
    with pytest.raises(GenerationError, match=message):
        raise outcomes.pop(bad)
    for seed, prompt in enumerate(prompts):
        if prompt != bad:
            np.testing.assert_allclose(outcomes[prompt].latents, alone(prompt, seed), atol=1e-4)
    assert (engine.load().started, engine.cached_bytes()) == (0, 0)


@pytest.mark.parametrize("most_rows", [2, 3, 5])
def test_too_little_memory_splits_the_batch_and_lowers_the_limit(crowd, alone, most_rows):
    outcomes, _, faulty = crowd(PROMPTS, most_rows)
    for seed, prompt in enumerate(PROMPTS):
        np.testing.assert_allclose(outcomes[prompt].latents, alone(prompt, seed), atol=1e-4)
    failed = [at for at, rows in enumerate(faulty.rows) if rows > most_rows]
    assert failed
    assert len(failed) <= 3  # halved until it fitted, and not tried again


def fails_once(call):
    """Return the call as it is but for the first time, when its memory is short once it is done."""
    tries = itertools.count()

    def failing(*arguments, **options):
        made = call(*arguments, **options)
        if next(tries) == 0:
            raise torch.OutOfMemoryError("out of memory on purpose")
        return made

    return failing


@pytest.mark.parametrize("failing", ["sampler", "cache"])
@pytest.mark.parametrize("sampler", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_memory_that_is_short_after_the_forward_leaves_the_sampler_where_it_was(
    model, config, monkeypatch, sampler, failing
):
    sampled = resample(model, SchedulerConfig.model_validate({"class": sampler}))
    plan = CachePlan.from_steps(Provenance(num_inference_steps=6), {4: (0, 1, 3, 5)})
    options = {"info": sampled.info, "config": config, "plan": plan}
    planned = [plan_request(GenerationRequest("a cat", seed=seed, budget="4"), **options) for seed in range(2)]

    def ended(step, fail):
        jobs = {number: start_job(sampled, each) for number, each in enumerate(planned)}
        for at in range(6):
            with monkeypatch.context() as patch:
                if at == step:
                    fail(patch, jobs)
                stepped = step_jobs(sampled, jobs)
            assert (stepped.failures, stepped.is_split) == ({}, at == step)
        return [(job.latents, job.scheduler.step_index) for job in jobs.values()]

    def fail(patch, jobs):
        owner, name = (jobs[0].scheduler, "step") if failing == "sampler" else (StepCache, "record")
        patch.setattr(owner, name, fails_once(getattr(owner, name)))

    expected = ended(None, fail)
    assert [index for _, index in expected] == [6, 6]
    for latents, index in ended(3, fail):
        theirs, their_index = expected.pop(0)
        assert index == their_index
        torch.testing.assert_close(latents, theirs, rtol=0, atol=1e-5)


def test_what_alone_has_too_little_memory_fails_alone(model):
    faulty = Faulty(model, 1)
    engine = Engine(faulty, config_of(), None)
    with pytest.raises(GenerationError, match="out of memory on purpose"):
        engine.generate(GenerationRequest("a cat", seed=0))
    result = engine.generate(GenerationRequest("a cat", seed=0, guidance_scale=1.0))  # one row
    assert result.info["budget"] == "full"
    engine.close()


def test_a_row_limit_is_halved_and_slowly_raised_again():
    limit = RowLimit()
    limit.stepped(8, 8)
    assert limit.rows == 4
    limit.stepped(4, 4)
    assert limit.rows == 2
    for _ in range(199):
        limit.stepped(2, None)
    assert limit.rows == 2
    limit.stepped(2, None)
    assert limit.rows == 4
    for _ in range(400):
        limit.stepped(4, None)
    assert limit.rows is None


def broken(*_, **__):
    raise ZeroDivisionError("a bug")


def test_a_bug_in_admission_refuses_that_request_and_no_other(model, plan, monkeypatch):
    engine = Engine(model, config_of(), plan)
    with monkeypatch.context() as patch:
        patch.setattr(Admission, "accept", broken)
        with pytest.raises(GenerationError, match="could not be accepted: ZeroDivisionError: a bug"):
            engine.submit(GenerationRequest("a cat"), on_done=print)
    assert engine.load().waiting == 0
    assert isinstance(engine.generate(GenerationRequest("a cat")), GenerationResult)
    engine.close()


@pytest.mark.parametrize(
    ("owner", "name"), [(Admission, "begin"), (Admission, "go_on"), (Admission, "etas"), (Scheduler, "choose")]
)
def test_a_bug_in_a_decision_stops_nobody(model, plan, monkeypatch, owner, name):
    monkeypatch.setattr(owner, name, broken)
    engine, answers = Engine(model, config_of(), plan), Answers()
    for number in range(3):
        engine.submit(
            GenerationRequest("a cat", seed=number, budget="fast..full"),
            on_done=answers.of(number),
            on_step=lambda progress: None,
        )
    assert all(isinstance(outcome, GenerationResult) for outcome in answers.wait(3).values())
    engine.close()


def test_a_bug_that_nobody_foresaw_answers_what_is_started_and_goes_on(model, plan, monkeypatch):
    engine, failed = Engine(model, config_of(), plan), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(Ticker, "step", broken)
        engine.submit(GenerationRequest("a cat", seed=0), on_done=lambda outcome: failed.set())
        assert failed.wait(60)
    assert isinstance(engine.generate(GenerationRequest("a cat", seed=0)), GenerationResult)
    assert engine.workers()[0].restarts >= 1
    engine.close()
