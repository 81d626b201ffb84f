"""Random mixes of budgets, arrivals and cancellations on the tiny model: nobody notices the others."""

import dataclasses
import threading
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lemica_backend.config import ModelConfig
from lemica_backend.denoise import denoise
from lemica_backend.engine import Engine
from lemica_backend.errors import EngineUnavailableError, RequestCancelledError
from lemica_backend.job import start_job
from lemica_backend.planned import plan_request
from lemica_backend.profile import Profile
from lemica_backend.types import GenerationRequest, GenerationResult
from lemica_planner import CachePlan, PlanEntry
from tests.engine.believing import Told

STEPS = 7
PATHS = {2: (0, 6), 3: (0, 3, 6), 4: (0, 2, 4, 6), 5: (0, 1, 2, 4, 6), 6: (0, 1, 2, 3, 4, 6)}
ONE_CACHE = 2 * 16 * 36 * 24 * 4  # branches, frames, patches, width, float32
COSTS = {"alone": {1: 0.5, 2: 1.0, 4: 2.0, 8: 4.0}, "shared": {1: 0.9, 2: 1.0, 4: 1.1, 8: 1.2}}
RANGES = ["2..full", "3..5", "4..full"]
BUDGETS = ["full", "2", "3", "5", *RANGES, *RANGES]

REQUESTS = st.lists(
    st.fixed_dictionaries(
        {
            "budget": st.sampled_from(BUDGETS),
            "seed": st.integers(0, 2),
            "prompt": st.sampled_from(["a cat", "a long story about a dog and its bone"]),
            "guidance_scale": st.sampled_from([4.0, 4.0, 1.0]),
            "deadline_ms": st.sampled_from([None, None, 4_000, 30_000]),
            "priority": st.integers(0, 1),
            "client_id": st.sampled_from(["", "a"]),
            "arrives_at": st.integers(0, 12),  # stem of all requests
            "cancelled_at": st.sampled_from([None, None, None, None, None, 2, 5]),  # own step
        }
    ),
    min_size=1,
    max_size=7,
)


class Counting:
    """A model that calls `on_stem` with the number of every stem."""

    def __init__(self, model):
        self._model = model
        self.stems = 0
        self.on_stem = lambda stems: None

    def __getattr__(self, name):
        return getattr(self._model, name)

    def stem(self, *inputs):
        self.stems += 1
        self.on_stem(self.stems)
        return self._model.stem(*inputs)


@pytest.fixture(scope="module")
def rich_plan(plan):
    provenance = dataclasses.replace(plan.provenance, num_inference_steps=STEPS, guidance_scale=None)
    entries = {budget: PlanEntry(path, (7.0 - budget, *[0.0] * (budget - 2))) for budget, path in PATHS.items()}
    return CachePlan(provenance=provenance, entries=entries, names={})


@pytest.fixture(scope="module")
def alone(model, rich_plan):
    """Return the latents of a request that follows the given computed steps by itself."""

    @cache
    def run(prompt, seed, guidance_scale, computed):
        asked = GenerationRequest(prompt, seed=seed, guidance_scale=guidance_scale, budget="full")
        planned = plan_request(asked, info=model.info, config=config_of({}), plan=rich_plan)
        reuse = PlanEntry(computed).reuse("residual")
        with torch.inference_mode():
            job = start_job(model, dataclasses.replace(planned, computed=frozenset(computed), reuse=reuse))
        while not job.is_finished:
            denoise(model, [job])
        return job.latents.numpy()

    return run


@pytest.fixture(scope="module")
def engine_of(model, rich_plan):
    def make(cost, policy):
        counting, profile = Counting(model), Profile(Told(COSTS[cost]), {"residual": ONE_CACHE // 2})
        config = config_of({"policy": policy, "align_ticks": 3})
        return Engine(counting, config, rich_plan, profile=profile), counting

    return make


def config_of(scheduling):
    return ModelConfig.model_validate(
        {
            "defaults": {"num_inference_steps": STEPS, "guidance_scale": 4.0},
            "limits": {"max_active": 3, "cache_bytes": 2 * ONE_CACHE},
            "scheduling": scheduling,
        }
    )


class Run:
    """Sends requests when they are due and keeps what comes back."""

    def __init__(self, engine, model, requests):
        self.engine, self.model = engine, model
        self.due = dict(enumerate(requests))
        self.answers, self.refused, self.bytes = {}, {}, []
        self.progress = dict.fromkeys(self.due, 0)
        self._lock, self._all = threading.Condition(), len(requests)
        model.stems, model.on_stem = 0, self.send_due

    def send_due(self, stems):
        with self._lock:
            now = [number for number, each in self.due.items() if each["arrives_at"] <= stems]
            taken = {number: self.due.pop(number) for number in now}
        for number, each in taken.items():
            self.send(number, dict(each))

    def send(self, number, each):
        each.pop("arrives_at")
        cancelled_at = each.pop("cancelled_at")

        def step(progress):
            self.progress[number] += 1
            assert progress.step + 1 == self.progress[number]
            self.bytes.append(self.engine.load())

        def is_cancelled():
            return cancelled_at is not None and self.progress[number] >= cancelled_at

        def take(outcome):
            with self._lock:
                self.answers.setdefault(number, []).append(outcome)
                self._lock.notify_all()

        try:
            self.engine.submit(GenerationRequest(**each), on_done=take, is_cancelled=is_cancelled, on_step=step)
        except EngineUnavailableError as error:
            with self._lock:
                self.refused[number] = error
                self._lock.notify_all()

    def finish(self):
        while self.due or len(self.answers) + len(self.refused) < self._all:
            with self._lock:
                sent = self._all - len(self.due)
                assert self._lock.wait_for(lambda sent=sent: len(self.answers) + len(self.refused) >= sent, 60)
            self.model.stems += 1  # nothing runs, so nobody counts
            self.send_due(self.model.stems)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    requests=REQUESTS,
    cost=st.sampled_from(sorted(COSTS)),
    policy=st.sampled_from(["srpt", "fcfs", "edf"]),
)
def test_nobody_notices_the_others(engine_of, alone, requests, cost, policy):
    engine, counting = engine_of(cost, policy)
    run = Run(engine, counting, requests)
    run.send_due(0)
    run.finish()
    engine.close()
    assert sorted([*run.answers, *run.refused]) == list(range(len(requests)))
    assert all(len(outcomes) == 1 for outcomes in run.answers.values())
    assert all(load.cached_bytes <= load.reserved_bytes <= 2 * ONE_CACHE for load in run.bytes)
    for number, (outcome,) in run.answers.items():
        asked = requests[number]
        if isinstance(outcome, GenerationResult):
            check_result(asked, outcome, alone)
        else:
            assert isinstance(outcome, RequestCancelledError)
            assert asked["cancelled_at"] is not None
    assert all(requests[number]["deadline_ms"] is not None for number in run.refused)


def check_result(asked, result, alone):
    computed = tuple(result.info["computed_steps"])
    assert [step for step, (_, was) in enumerate(result.info["step_ms"]) if was] == list(computed)
    floor, _, ceiling = asked["budget"].partition("..")
    floor, ceiling = (STEPS if end == "full" else int(end) for end in (floor, ceiling or floor))
    assert floor <= len(computed) <= ceiling
    assert result.info["predicted_error"] <= (0.0 if floor == STEPS else 7.0 - floor)
    if floor == ceiling:
        assert computed == (tuple(range(STEPS)) if floor == STEPS else PATHS[floor])
    expected = alone(asked["prompt"], asked["seed"], asked["guidance_scale"], computed)
    worst = np.abs(result.latents - expected).max() / np.abs(expected).max()
    assert worst <= 1e-4
