"""What becomes of a prompt before the text encoder, and after it."""

import pytest
import torch

from lemica_backend.models.open_sora.settings import VideoSettings
from lemica_backend.models.open_sora.text import TextConditioner
from tests.open_sora import reference


def conditioner(pipeline, **settings):
    video = VideoSettings(**{"clean_caption": False, **settings})
    return TextConditioner(pipeline.tokenizer, pipeline.text_encoder, video, max_tokens=120)


@pytest.mark.parametrize(
    ("settings", "prompt", "text"),
    [
        ({}, " A Cat", "a cat aesthetic score: 6.5."),
        ({"aesthetic_score": 7}, "a cat", "a cat aesthetic score: 7.0."),
        ({"aesthetic_score": None}, "A cat. ", "a cat."),
        ({}, "a cat aesthetic score: 5.0.", "a cat aesthetic score: 5.0."),
    ],
)
def test_the_score_is_written_after_the_prompt_once(pipeline, settings, prompt, text):
    assert conditioner(pipeline, **settings).prepare(prompt) == text


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("A cat", "a cat aesthetic score: 6.5."),
        ("see https://example.com/a now", "see now aesthetic score: 6.5."),
        ("<b>bold</b> %253Ci%253Ecat", "bold cat aesthetic score: 6.5."),  # escaped twice
        ("a 猫 cat @home #12", "a cat aesthetic score: 6.5."),
    ],
)
def test_cleaning(pipeline, prompt, text):
    pytest.importorskip("bs4")
    pytest.importorskip("ftfy")
    assert conditioner(pipeline, clean_caption=True).prepare(prompt).split() == text.split()


def test_missing_packages_are_named_before_the_first_prompt(pipeline, monkeypatch):
    monkeypatch.setattr("lemica_backend.models.open_sora.text.is_ftfy_available", lambda: False)
    with pytest.raises(Exception, match="ftfy"):
        conditioner(pipeline, clean_caption=True)


@pytest.mark.parametrize("prompt", ["", "a cat", "a much longer caption of a dog"])
def test_states_are_those_of_the_padded_and_masked_prompt(pipeline, prompt):
    with torch.no_grad():
        ours = conditioner(pipeline).encode(prompt)
        states, mask = reference.encode(pipeline, f"{prompt} aesthetic score: 6.5.")
    assert len(ours) == mask.sum()
    assert (ours - states[0, : len(ours)]).abs().max() <= 1e-5
