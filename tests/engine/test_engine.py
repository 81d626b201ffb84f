"""Counting, isolation, cancelling, limits and memory of the in-process engine."""

import gc
import threading
import weakref

import numpy as np
import pytest
import torch

from lemica_backend.config import ModelConfig
from lemica_backend.engine import Engine
from lemica_backend.errors import (
    DeadlineExceededError,
    EngineUnavailableError,
    GenerationError,
    InvalidRequestError,
    RequestCancelledError,
)
from lemica_backend.types import GenerationRequest

STEPS = 6


class Gate:
    """A model that waits at its first stem until it is opened, and counts rows that enter the block stack."""

    def __init__(self, model):
        self._model = model
        self.opened = threading.Event()
        self.reached = threading.Event()
        self.rows = 0
        self.fail_at_rows = None
        self.latents = []

    def __getattr__(self, name):
        return getattr(self._model, name)

    def stem(self, latents, timesteps, texts):
        self.reached.set()
        assert self.opened.wait(60)
        return self._model.stem(latents, timesteps, texts)

    def blocks(self, stem, texts):
        self.rows += len(texts)
        if self.fail_at_rows is not None and self.rows > self.fail_at_rows:
            raise RuntimeError("broken on purpose")
        output = self._model.blocks(stem, texts)
        self.latents.append(weakref.ref(output))
        return output


@pytest.fixture
def gate(model):
    gate = Gate(model)
    gate.opened.set()
    return gate


@pytest.fixture
def gated(gate, config, plan):
    engine = Engine(gate, config, plan)
    yield engine
    gate.opened.set()
    engine.close()


def request(prompt="a cat", **options):
    return GenerationRequest(prompt, **{"seed": 1, **options})


class Answer:
    def __init__(self):
        self.outcomes = []
        self._done = threading.Event()

    def __call__(self, outcome):
        self.outcomes.append(outcome)
        self._done.set()

    def wait(self):
        assert self._done.wait(60)
        return self.outcomes[0]


@pytest.mark.parametrize(("budget", "computed"), [("full", 6), ("slow", 4), ("fast", 3), ("4", 4), ("3", 3)])
def test_a_budget_of_b_runs_the_blocks_b_times_a_branch_pair(gated, gate, budget, computed):
    info = gated.generate(request(budget=budget)).info
    assert gate.rows == 2 * computed
    assert len(info["computed_steps"]) == computed
    assert [step for step, (_, was_computed) in enumerate(info["step_ms"]) if was_computed] == info["computed_steps"]


def test_without_guidance_there_is_one_branch(gated, gate):
    gated.generate(request(guidance_scale=1.0))
    assert gate.rows == STEPS


def test_same_seed_same_video_other_seed_other_video(engine):
    first, again, other = (engine.generate(request(seed=seed)).latents for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_a_missing_seed_is_drawn_and_reported(engine):
    result = engine.generate(request(seed=None))
    again = engine.generate(request(seed=result.info["seed"]))
    assert np.array_equal(result.latents, again.latents)


def test_a_fault_stays_with_its_request_and_the_next_one_is_as_on_a_fresh_engine(gated, gate, engine):
    gate.fail_at_rows = 2
    with pytest.raises(GenerationError, match="broken on purpose"):
        gated.generate(request(budget="fast"))
    gate.fail_at_rows = None
    fresh = engine.generate(request(budget="fast")).latents
    assert np.array_equal(gated.generate(request(budget="fast")).latents, fresh)


def test_a_cancelled_request_ends_and_leaves_nothing_behind(gated, gate, engine):
    gate.opened.clear()
    answer, gone = Answer(), threading.Event()
    gated.submit(request(budget="fast"), on_done=answer, is_cancelled=gone.is_set)
    assert gate.reached.wait(60)
    gone.set()
    gate.opened.set()
    assert isinstance(answer.wait(), RequestCancelledError)
    assert gated.cached_bytes() == 0
    fresh = engine.generate(request(budget="fast")).latents
    assert np.array_equal(gated.generate(request(budget="fast")).latents, fresh)


def test_residuals_are_freed_when_a_request_ends(gated, gate):
    gated.generate(request(budget="fast"))
    gc.collect()
    assert gated.cached_bytes() == 0
    assert gate.latents
    assert all(reference() is None for reference in gate.latents)


def test_a_job_holds_one_residual_a_branch(gated, gate, model):
    gate.opened.clear()
    answer, seen = Answer(), []
    gated.submit(
        request(budget="fast"), on_done=answer, is_cancelled=lambda: seen.append(gated.cached_bytes()) or False
    )
    gate.opened.set()
    answer.wait()
    one = 16 * 36 * 24 * 4  # frames x patches x width x float32
    assert set(seen) == {0, 2 * one}


def test_an_overdue_request_is_answered(gated, gate):
    gate.opened.clear()
    answer = Answer()
    gated.submit(request(deadline_ms=1), on_done=answer)
    gate.opened.set()
    assert isinstance(answer.wait(), DeadlineExceededError)


def test_a_full_line_refuses_and_priority_overtakes(gate, model, plan):
    limits = {"max_active": 1, "max_queue": 2}
    config = ModelConfig.model_validate({"defaults": {"num_inference_steps": STEPS}, "limits": limits})
    engine = Engine(gate, config, plan)
    gate.opened.clear()
    order = []
    answers = {name: Answer() for name in ("running", "low", "high")}
    engine.submit(request(), on_done=answers["running"])
    assert gate.reached.wait(60)
    for name, priority in (("low", 0), ("high", 1)):
        engine.submit(
            request(priority=priority),
            on_done=lambda outcome, name=name: (order.append(name), answers[name](outcome)),
        )
    with pytest.raises(EngineUnavailableError, match="2 requests are waiting, the limit is 2: try again later"):
        engine.submit(request(), on_done=print)
    gate.opened.set()
    for answer in answers.values():
        answer.wait()
    engine.close()
    assert order == ["high", "low"]


def test_a_waiting_request_that_is_cancelled_or_overdue_is_answered_where_it_waits(gate, plan):
    limits = {"max_active": 1, "max_queue": 2}
    config = ModelConfig.model_validate({"defaults": {"num_inference_steps": 50}, "limits": limits})
    engine = Engine(gate, config, plan)
    gate.opened.clear()
    running, cancelled, overdue, later = (Answer() for _ in range(4))
    engine.submit(request(), on_done=running)
    assert gate.reached.wait(60)
    engine.submit(request(), on_done=cancelled, is_cancelled=lambda: True)
    engine.submit(request(deadline_ms=1), on_done=overdue)
    gate.opened.set()
    assert isinstance(cancelled.wait(), RequestCancelledError)
    assert isinstance(overdue.wait(), DeadlineExceededError)
    assert not running.outcomes
    engine.submit(request(num_inference_steps=1), on_done=later)  # there is room again
    assert later.wait().info["num_inference_steps"] == 1
    engine.close()


def test_a_fault_keeps_its_cause_for_the_log(gated, gate):
    gate.fail_at_rows = 0
    with pytest.raises(GenerationError) as caught:
        gated.generate(request())
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_closing_answers_everyone_once(gate, config, plan):
    engine = Engine(gate, config, plan)
    gate.opened.clear()
    answers = [Answer() for _ in range(12)]
    for answer in answers:
        engine.submit(request(), on_done=answer)
    closer = threading.Thread(target=engine.close)
    closer.start()
    gate.opened.set()
    closer.join(60)
    for answer in answers:
        assert isinstance(answer.wait(), EngineUnavailableError)
        assert len(answer.outcomes) == 1
    with pytest.raises(EngineUnavailableError):
        engine.submit(request(), on_done=print)


def test_nan_latents_are_an_error(gated, gate, model):
    gate.decode = None  # must not be reached
    gate.head = lambda hidden, stem: model.head(hidden, stem) * torch.nan
    with pytest.raises(GenerationError, match="not finite"):
        gated.generate(request())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"budget": "quick"}, "slow"),
        ({"budget": "2"}, "3"),
        ({"budget": "99"}, "4"),
        ({"budget": "fast", "num_inference_steps": 5}, "num_inference_steps"),
        ({"budget": "fast", "guidance_scale": 5.0}, "guidance_scale"),
        ({"height": 64}, "48"),
        ({"width": 1}, "48"),
        ({"num_frames": 8}, "16"),
        ({"seed": -1}, "0 to"),
        ({"num_inference_steps": 1001}, "1 to 1000"),
        ({"num_inference_steps": 0}, "1 to 1000"),
    ],
)
def test_what_cannot_be_served_is_refused_with_what_is_allowed(engine, options, says):
    with pytest.raises(InvalidRequestError, match=says):
        engine.submit(request(**options), on_done=print)


def test_a_prompt_beyond_the_text_encoder_is_refused_not_cut(engine):
    with pytest.raises(InvalidRequestError, match="at most 120"):
        engine.generate(request("word " * 100))


def test_without_a_plan_only_full_is_served(model, config):
    engine = Engine(model, config, None)
    assert engine.generate(request()).info["plan_id"] is None
    with pytest.raises(InvalidRequestError, match="no cache plan"):
        engine.generate(request(budget="fast"))
    engine.close()
