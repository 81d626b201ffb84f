"""The moving-shapes world: captions, generator, checker, tokenizer, and the parts of training that can go wrong."""

import random
from collections import Counter

import numpy as np
import pytest
import torch

from shapes.autoencoder import CONFIG, standardise, to_pixels
from shapes.batches import Clips, tokenise
from shapes.checker import recognise
from shapes.checkpoint import load_checkpoint, save_checkpoint
from shapes.evaluate import REAL_BAR, real_clips, score
from shapes.latte import BLIND, IMAGES_BELOW, _loss, _timesteps
from shapes.model import TextToVideo, make_scheduler
from shapes.pool import Pool
from shapes.render import FRAMES, SIZE, draw
from shapes.scene import Scene, all_scenes, paraphrase, split_scenes
from shapes.text import teach_reading
from shapes.tokenizer import MAX_TOKENS, build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_the_split_keeps_scenes_apart_and_is_the_same_every_time():
    trained, held_out = split_scenes()
    assert len(all_scenes()) == 768
    assert set(trained).isdisjoint(held_out)
    assert set(trained) | set(held_out) == set(all_scenes())
    assert (trained, held_out) == split_scenes()
    for field in Scene._fields:  # each value is trained, so a held-out scene is a new combination only
        assert {getattr(scene, field) for scene in trained} == {getattr(scene, field) for scene in all_scenes()}


def test_the_checker_recognises_held_out_clips_of_the_generator():
    scores = score(real_clips(300), 300, lambda *_: None)
    assert all(value >= REAL_BAR for value in scores.values()), scores


@pytest.mark.parametrize("field", Scene._fields)
def test_the_checker_says_what_is_shown_not_what_was_asked(field):
    rng = np.random.default_rng(3)
    scenes = all_scenes()
    for _ in range(20):
        shown, asked = (scenes[rng.integers(len(scenes))] for _ in range(2))
        if getattr(shown, field) != getattr(asked, field):
            assert getattr(recognise(draw(shown, rng)), field) != getattr(asked, field)


@pytest.mark.parametrize("value", [0, 90, 255])
def test_a_video_of_nothing_shows_nothing(value):
    seen = recognise(np.full((16, SIZE, SIZE, 3), value, np.uint8))
    assert (seen.colour, seen.shape, seen.motion) == ("none", "none", "none")


def test_a_still_video_does_not_move():
    frames = draw(Scene("red", "square", "moving right", "black"), np.random.default_rng(0))
    assert recognise(np.repeat(frames[:1], 16, axis=0)).motion == "none"


def test_clips_vary_and_stay_in_the_frame():
    rng = np.random.default_rng(1)
    for scene in all_scenes()[::16]:
        one, other = draw(scene, rng), draw(scene, rng)
        assert one.shape == (FRAMES, SIZE, SIZE, 3)
        assert not np.array_equal(one, other)
        assert len(np.unique(one[:, 0].reshape(-1, 3), axis=0)) == 1  # nothing touches the border


def test_paraphrases_name_colour_shape_and_background_and_vary():
    rng = random.Random(0)
    scene = Scene("red", "circle", "moving left", "navy")
    texts = Counter(paraphrase(scene, rng) for _ in range(200))
    assert len(texts) > 40
    assert all(word in text.lower() for text in texts for word in ("red", "circle", "navy"))


def test_the_tokenizer_is_the_same_every_time_and_takes_any_text(tokenizer):
    caption = "a red circle moving right on a navy background"
    assert tokenizer(caption).input_ids == build_tokenizer()(caption.upper()).input_ids
    assert tokenizer(caption).input_ids[-1] == tokenizer.eos_token_id
    assert len(tokenizer(caption).input_ids) <= 12
    strange = tokenizer("Ünïcode, 日本語 and \x00").input_ids
    assert tokenizer.unk_token_id not in strange
    assert tokenizer.model_max_length == MAX_TOKENS


def test_a_dropped_caption_keeps_its_length(tokenizer):
    captions = ["a red circle", "a blue square moving left on a navy background"]
    batch = tokenise(*torch.zeros(2, 2, 4, 16, 20, 20), captions, [False, True], tokenizer)
    lengths = [len(tokenizer(caption).input_ids) for caption in captions]
    seen = (batch.bias[::FRAMES, 0] == 0).sum(1).tolist()
    assert seen == lengths  # what cross-attention sees
    assert batch.mask.sum(1).tolist() == [lengths[0], 1]  # what the text encoder sees
    assert batch.bias.shape[0] == 2 * FRAMES


def test_standardising_changes_the_latents_and_not_the_picture():
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    model = AutoencoderKL(**CONFIG).eval()
    rng = np.random.default_rng(0)
    pixels = torch.cat([to_pixels(draw(scene, rng)[:2]) for scene in all_scenes()[::96]])
    with torch.no_grad():
        before = model.decode(model.encode(pixels).latent_dist.mean).sample
        deviation = model.encode(pixels).latent_dist.std
        scale = model.encode(pixels).latent_dist.mean.std((0, 2, 3))
        standardise(model, pixels)
        posterior = model.encode(pixels).latent_dist
        after = model.decode(posterior.mean).sample
    assert (before - after).abs().max() < 1e-3
    assert posterior.mean.mean((0, 2, 3)).abs().max() < 1e-3
    assert (posterior.mean.std((0, 2, 3)) - 1).abs().max() < 1e-2
    torch.testing.assert_close(posterior.std, deviation / scale[None, :, None, None], rtol=1e-3, atol=1e-6)


def test_a_checkpoint_restores_exactly_and_a_missing_one_starts_at_zero(tmp_path):
    torch.manual_seed(0)
    model, other = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    assert load_checkpoint(tmp_path / "none.pt", model=model) == 0
    save_checkpoint(tmp_path / "run" / "a.pt", 17, model=model)
    assert load_checkpoint(tmp_path / "run" / "a.pt", model=other) == 17
    assert torch.equal(model.weight, other.weight)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["a.pt"]


def test_the_text_encoder_learns_to_read_captions_that_it_never_saw(tokenizer):
    torch.manual_seed(0)
    text = TextToVideo().text.requires_grad_(True)
    assert teach_reading(text, tokenizer, iterations=1) < 0.5
    assert teach_reading(text, tokenizer, iterations=200) > 0.9


@pytest.fixture(scope="module")
def clips(tokenizer):
    """One clip of the first scene filled with 1, one with 3, and one clip of each other scene filled with 5."""
    scenes = torch.tensor([0, *range(len(split_scenes()[0]))])
    values = torch.full((len(scenes),), 5.0)
    values[:2] = torch.tensor([1.0, 3.0])
    latents = values[:, None, None, None, None].expand(-1, 4, FRAMES, 20, 20).half()
    return Clips(Pool(latents, scenes), tokenizer, seed=0)


def test_a_batch_holds_clips_or_as_many_single_frames(clips):
    assert clips.draw(2, as_images=False).latents.shape == (2, 4, FRAMES, 20, 20)
    frames = clips.draw(2, as_images=True)
    assert frames.latents.shape == frames.means.shape == (2 * FRAMES, 4, 1, 20, 20)
    assert len(frames.bias) == 2 * FRAMES


def test_means_are_of_the_caption_or_of_everything_for_the_empty_prompt(clips):
    drawn = clips.draw(300, as_images=True)
    latents, means = drawn.latents[:, 0, 0, 0, 0], drawn.means[:, 0, 0, 0, 0]
    dropped = drawn.mask.sum(1) == 1
    assert torch.all(means[~dropped & (latents < 5)] == 2)
    assert torch.all(means[~dropped & (latents == 5)] == 5)
    everything = 5 - 3 / len(split_scenes()[0])
    torch.testing.assert_close(means[dropped], torch.full_like(means[dropped], everything))


def test_layout_is_learned_at_high_noise_and_drawing_below():
    assert _timesteps(64, FRAMES, layout=True).min() >= BLIND
    assert _timesteps(64, 1, layout=False).max() < IMAGES_BELOW
    spread = _timesteps(64, FRAMES, layout=False)
    assert spread.min() < 50
    assert 950 < spread.max() < 1000


def test_one_batch_can_be_learned(tokenizer):
    torch.manual_seed(0)
    model = TextToVideo()
    batch = tokenise(*torch.randn(2, 2, 4, 16, 20, 20), ["a red circle", "a blue cross"], [False, False], tokenizer)
    optimizer = torch.optim.AdamW(model.denoiser.parameters(), 2e-3)
    losses = []
    for _ in range(12):
        torch.manual_seed(1)  # the same noise, so that the loss can only fall by learning
        loss = _loss(model, make_scheduler(), batch, layout=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_exported_weights_can_be_trained_again(tmp_path):
    from diffusers import AutoencoderKL

    from shapes.export import export_latte
    from shapes.model import load_trained

    torch.manual_seed(0)
    model = TextToVideo().eval()
    export_latte(model, AutoencoderKL(**CONFIG), tmp_path)
    again = load_trained(tmp_path)
    for (name, before), after in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(after, before.float().half().float(), rtol=0, atol=0, msg=name)
