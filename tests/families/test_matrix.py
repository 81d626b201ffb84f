"""The matrix: every family and variant x full budgets, counted forwards, mixed batches, save and reload, cancelling."""

import dataclasses
import gc
import weakref
from concurrent.futures import Future

import numpy as np
import pytest
import torch

from lemica_backend.config import Size
from lemica_backend.errors import RequestCancelledError
from lemica_backend.job import start_job
from lemica_backend.models import load_model
from lemica_backend.types import GenerationRequest
from tests.tiny.family import COMPUTED, STEPS, assert_close, counted

SHORT, LONG = "a cat", 'a sign that says "open" on a door'


@pytest.fixture
def engine(family):
    engine = family.engine()
    yield engine
    engine.close()


@pytest.mark.parametrize("options", [{}, {"guidance_scale": 1.0}, {"negative_prompt": "fog", "steps": 4}])
def test_full_budget_equals_the_pipeline(family, options):
    options = _accepted(family, options)
    assert_close(family.ours(SHORT, **options), family.theirs(SHORT, **options))


@pytest.mark.parametrize(("budget", "computed"), [("3", COMPUTED), ("full", tuple(range(STEPS)))])
def test_a_budget_of_b_runs_the_blocks_b_times(family, engine, budget, computed):
    with counted(family.model) as runs:
        result = engine.generate(GenerationRequest(SHORT, seed=7, budget=budget, **family.tiny.shown()))
    assert len(runs) == len(computed)
    assert result.info["computed_steps"] == list(computed)


def test_a_mixed_batch_equals_the_pipeline_alone(family):
    """Three requests, of other prompts, images, seeds, guidance and steps, each begun a tick after the one before."""
    wanted = [
        (SHORT, {}),
        (LONG, {"seed": 8, "guidance_scale": 6.0, "negative_prompt": "a much longer text to avoid"}),
        ("", {"seed": 9, "guidance_scale": 1.0, "steps": 4}),
    ]
    wanted = [
        (prompt, _accepted(family, options) | family.tiny.shown(number))
        for number, (prompt, options) in enumerate(wanted)
    ]
    ours = family.run([family.job(prompt, **options) for prompt, options in wanted], starts=[0, 1, 2])
    for latents, (prompt, options) in zip(ours, wanted, strict=True):
        assert_close(latents, family.theirs(prompt, **options))


def test_a_folder_saved_again_is_the_same_model(family, tmp_path):
    family.pipeline.save_pretrained(tmp_path)
    size, options = Size(**family.tiny.size), family.tiny.options
    model = load_model(None, tmp_path, dtype=torch.float32, device="cpu", size=size, options=options)
    again = dataclasses.replace(family, model=model)
    assert model.info == family.model.info
    assert torch.equal(again.ours(SHORT, steps=3), family.ours(SHORT, steps=3))


def test_a_request_that_is_cancelled_on_the_way_leaves_nothing(family, engine, monkeypatch):
    request = GenerationRequest(SHORT, seed=7, budget="3", **family.tiny.shown())
    before, jobs, held, answer = engine.generate(request).latents, [], [], Future()

    def start(*given):
        job = start_job(*given)
        jobs.append(weakref.ref(job))
        return job

    def is_gone():
        held.append(engine.cached_bytes())
        return held[-1] > 0 and len(held) > 3

    monkeypatch.setattr("lemica_backend.local_worker.start_job", start)
    other = GenerationRequest(LONG, seed=8, budget="3", **family.tiny.shown(1))
    engine.submit(other, on_done=answer.set_result, is_cancelled=is_gone)
    assert isinstance(answer.result(60), RequestCancelledError)
    assert held[-1] > 0  # residuals, when it was cancelled
    assert engine.cached_bytes() == 0
    assert np.array_equal(engine.generate(request).latents, before)
    gc.collect()
    assert [job() for job in jobs[:1]] == [None]


def _accepted(family, options):
    if family.tiny.takes_negative_prompts:
        return options
    return {name: value for name, value in options.items() if name != "negative_prompt"}
