"""Small tensors are computed on one thread, the block stack on all of them."""

import pytest
import torch

from lemica_backend import threads
from lemica_backend.denoise import denoise
from lemica_backend.job import start_job
from lemica_backend.planned import plan_request
from lemica_backend.threads import threads_for, using_threads
from lemica_backend.types import GenerationRequest


@pytest.fixture(autouse=True)
def three_threads():
    with using_threads(3):
        yield


def seen_in_a_step(model, config, plan, monkeypatch):
    """Return the numbers of threads in which parts of a computed and a skipped step ran."""
    seen = []
    for name in ("stem", "blocks", "head"):
        part = getattr(model, name)

        def spied(*arguments, name=name, part=part):
            seen.append((name, torch.get_num_threads()))
            return part(*arguments)

        monkeypatch.setattr(model, name, spied)
    request = GenerationRequest("x", seed=1, budget="fast")
    job = start_job(model, plan_request(request, info=model.info, config=config, plan=plan))
    for _ in range(2):  # of which the plan computes the first
        denoise(model, [job])
    return seen


def test_a_step_of_small_latents_wakes_threads_for_the_blocks_only(model, config, plan, monkeypatch):
    seen = seen_in_a_step(model, config, plan, monkeypatch)
    assert seen == [("stem", 1), ("blocks", 3), ("head", 1), ("stem", 1), ("head", 1)]
    assert torch.get_num_threads() == 3


def test_a_step_of_large_latents_takes_all_threads(model, config, plan, monkeypatch):
    monkeypatch.setattr(threads, "_SMALL", 1)
    assert {count for _, count in seen_in_a_step(model, config, plan, monkeypatch)} == {3}


def test_what_counts_is_all_that_is_embedded_together():
    half = torch.empty(threads._SMALL // 2)
    assert [threads_for([half] * count) for count in (1, 2, 3)] == [1, 1, 3]
    assert threads_for([half.to("meta")]) == 3  # another device's


def test_threads_come_back_after_an_error():
    def fail():
        assert torch.get_num_threads() == 1
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"), using_threads(1):
        fail()
    assert torch.get_num_threads() == 3
