"""What only the HunyuanVideo families have: guidance as an input of the transformer, and a guider."""

import pytest
from diffusers import ClassifierFreeZeroStarGuidance

from lemica_backend.errors import ModelLoadError
from tests.tiny import hunyuan_video, hunyuan_video_15
from tests.tiny.families import FAMILIES
from tests.tiny.family import Tiny, assert_close, first_block


@pytest.fixture(scope="module")
def embedded(load):
    return load(FAMILIES["hunyuan_video-embedded"])


@pytest.mark.parametrize(("variant", "branches"), [("embedded", 1), ("true-cfg", 2)])
def test_the_negative_prompt_runs_with_true_guidance_only(load, variant, branches):
    loaded, rows = load(FAMILIES[f"hunyuan_video-{variant}"]), []
    counter = first_block(loaded.model._net).register_forward_hook(lambda _block, args, _out: rows.append(len(args[0])))
    loaded.ours("a cat", steps=2, guidance_scale=6.0)
    counter.remove()
    assert rows == [branches] * 2


def test_a_prompt_beyond_the_77_tokens_of_the_pooled_vector_is_served(embedded):
    prompt = "a cat on a red mat that looks at a bird in a tree in the rain before a house of stone"
    assert len(prompt) > 77
    assert_close(embedded.ours(prompt), embedded.theirs(prompt))


def test_a_transformer_that_continues_an_image_is_refused(load):
    build = lambda: hunyuan_video.tiny_hunyuan_video(image_condition_type="token_replace")  # noqa: E731
    with pytest.raises(ModelLoadError, match="only text to video is served"):
        load(Tiny("hunyuan_video", "image", build, hunyuan_video.SIZE))


def test_a_transformer_without_embedded_guidance_is_served(load):
    build = lambda: hunyuan_video.tiny_hunyuan_video(guidance_embeds=False)  # noqa: E731
    loaded = load(Tiny("hunyuan_video", "plain", build, hunyuan_video.SIZE))
    assert_close(loaded.ours("a cat"), loaded.theirs("a cat"))


def tiny_15(**guider):
    tiny = hunyuan_video_15.TINY
    build = lambda: hunyuan_video_15.tiny_hunyuan_video_15(**guider)  # noqa: E731
    return Tiny(tiny.family, "other", build, tiny.size, set_guidance=tiny.set_guidance, shrink=tiny.shrink)


def test_the_guider_may_rescale(load):
    loaded = load(tiny_15(guidance_rescale=0.7))
    assert_close(loaded.ours("a cat"), loaded.theirs("a cat"))


@pytest.mark.parametrize(
    ("guider", "says"),
    [
        ({"start": 0.2}, "guider's start is 0.2; only 0.0 is served"),
        ({"stop": 0.5}, "guider's stop is 0.5"),
        ({"enabled": False}, "guider's enabled is False"),
        ({"use_original_formulation": True}, "guider's use_original_formulation is True"),
        ({"kind": ClassifierFreeZeroStarGuidance}, "guider is ClassifierFreeZeroStarGuidance; only Classifier"),
    ],
)
def test_other_guiders_are_refused(load, guider, says):
    with pytest.raises(ModelLoadError, match=says):
        load(tiny_15(**guider))


@pytest.mark.parametrize(("scale", "branches"), [(0.0, 2), (0.5, 2), (1.0, 1), (3.0, 2)])
def test_the_guider_says_which_scale_turns_guidance_off(load, scale, branches):
    """To its mind just 1, where other pipelines mean anything up to 1."""
    loaded = load(hunyuan_video_15.TINY)
    assert len(loaded.model.branches(scale)) == branches
    assert_close(loaded.ours("a cat", guidance_scale=scale), loaded.theirs("a cat", guidance_scale=scale))
