"""Videos that begin with an image: Wan 2.1, 2.2 and 2.2 5B, CogVideoX 1.0 and 1.5."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch

from lemica_backend.config import Size, load_config
from lemica_backend.engine import Engine, load_engine
from lemica_backend.errors import InvalidRequestError, ModelLoadError
from lemica_backend.image_file import open_image, read_image
from lemica_backend.models import load_model
from lemica_backend.replay import EngineReplayer
from lemica_backend.types import GenerationRequest
from lemica_planner import CachePlan, CalibrationError, Sample
from lemica_planner.calibrate import calibrate
from lemica_planner.prompt_sets import load_prompts
from lemica_planner.published import published_plan
from tests.tiny import cogvideox, wan
from tests.tiny.families import FAMILIES
from tests.tiny.family import STEPS, Tiny, assert_close, noise_png

OF_IMAGES = [name for name, tiny in FAMILIES.items() if tiny.takes_image]


@pytest.fixture(scope="module", params=OF_IMAGES)
def imaged(request, load):
    return load(FAMILIES[request.param])


@pytest.fixture(scope="module")
def clip(load):
    return load(FAMILIES["wan_i2v-2.1"])


def image_of(height, width, number=0, scale=1):
    return read_image(noise_png(height, width, number, scale), max_pixels=10**6)


def test_the_image_matters(imaged):
    this, other = imaged.ours("a cat"), imaged.ours("a cat", **imaged.tiny.shown(1))
    assert (this[..., 1:, :, :] - other[..., 1:, :, :]).abs().max() > 1e-3


def test_an_image_of_another_size_is_scaled_as_the_pipeline_does(imaged):
    size = imaged.tiny.size
    image = image_of(size["height"] // 2 * 3, size["width"] // 2 * 3, 5)
    assert_close(imaged.ours("a cat", image=image), imaged.theirs("a cat", image=image))


def test_a_first_frame_that_is_kept_is_the_image(load):
    loaded = load(FAMILIES["wan_i2v-2.2-5b"])
    first, other = (loaded.ours("a cat", seed=seed, steps=2)[:, 0] for seed in (7, 8))
    assert torch.equal(first, other)
    assert not torch.equal(first, loaded.ours("a cat", steps=2, **loaded.tiny.shown(1))[:, 0])


@pytest.mark.parametrize(("height", "width"), [(48, 48), (32, 50), (64, 92), (1, 3)])
def test_an_image_of_another_shape_is_refused_with_both_named(clip, height, width):
    with pytest.raises(InvalidRequestError, match=f"image is {width} x {height}, .* videos are 48 x 32"):
        clip.job("a cat", image=image_of(height, width))


@pytest.mark.parametrize(("height", "width"), [(32, 47), (64, 95), (2, 3), (33, 48)])
def test_a_side_may_be_off_by_a_pixel_of_the_video(clip, height, width):
    clip.job("a cat", image=image_of(height, width))


def test_models_of_images_need_one_and_others_take_none(clip, load):
    with pytest.raises(InvalidRequestError, match="image is missing; this model makes videos that begin with one"):
        clip.job("a cat", image=None)
    with pytest.raises(InvalidRequestError, match="videos of text alone: leave image out"):
        load(FAMILIES["wan-unipc"]).job("a cat", image=image_of(32, 48))


def test_an_engine_measures_such_a_model_at_load(clip):
    engine = Engine(clip.model, clip.config)
    try:
        result = engine.generate(GenerationRequest("a cat", seed=7, budget="full", **clip.tiny.shown()))
    finally:
        engine.close()
    assert (
        np.abs(result.latents - clip.ours("a cat", guidance_scale=clip.config.defaults.guidance_scale).numpy()).max()
        <= 1e-5
    )


def folder_of(loaded, tmp_path, **more):
    """A version folder with the weights of a tiny model."""
    (tmp_path / "weights").symlink_to(loaded.folder)
    stated = {"size": loaded.tiny.size, "options": loaded.tiny.options, "defaults": {"num_inference_steps": STEPS}}
    (tmp_path / "model.json").write_text(json.dumps(stated | more))
    return tmp_path


def test_calibrated_on_a_file_of_prompts_and_images_it_serves_the_plan(clip, tmp_path):
    for number in (0, 1):
        (tmp_path / f"{number}.png").write_bytes(noise_png(32, 48, number))
    lines = [{"prompt": "a cat", "image": f"{number}.png"} for number in (0, 1)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    samples = [prompt.sample(7) for prompt in load_prompts(str(tmp_path / "prompts.jsonl"))]
    replayer = EngineReplayer(clip.model, clip.config, "tiny")
    graph = calibrate(replayer, samples, max_span=3, journal=tmp_path / "journal")
    again = calibrate(replayer, samples, max_span=3, journal=tmp_path / "journal")
    assert np.array_equal(graph.weights, again.weights)
    assert (graph.sample_errors[0] != graph.sample_errors[1]).any()
    plan = CachePlan.from_graph(graph)
    assert set(plan.provenance.calibration) >= {"prompts_sha256", "images_sha256"}
    engine = load_engine(folder_of(clip, tmp_path), load_config(tmp_path / "model.json"), plan.to_json())
    result = engine.generate(GenerationRequest("a cat", seed=7, budget="3", **clip.tiny.shown()))
    engine.close()
    ours = clip.ours("a cat", computed=plan.resolve("3").steps, guidance_scale=clip.config.defaults.guidance_scale)
    assert np.abs(result.latents - ours.numpy()).max() <= 1e-5


def test_a_sample_whose_image_is_gone_or_another_is_named(clip, tmp_path):
    replayer, path = EngineReplayer(clip.model, clip.config, "tiny"), tmp_path / "a.png"
    sample = Sample("a cat", 7, str(path), hashlib.sha256(noise_png(32, 48)).hexdigest())
    with pytest.raises(CalibrationError, match="image of the prompt 'a cat' cannot be read"):
        replayer.open(sample)
    path.write_bytes(noise_png(32, 48, 1))
    with pytest.raises(CalibrationError, match="another image than when the prompts were read"):
        replayer.open(sample)
    with pytest.raises(CalibrationError, match="the sample 'a cat' cannot be used: image is missing"):
        replayer.open(Sample("a cat", 7))


def test_one_set_of_weights_is_two_models_with_plans_of_their_own(load, tmp_path):
    """Wan 2.2 5B is published as a pipeline of text, and model.json makes it one of images."""
    text, image = load(FAMILIES["wan-2.2-5b"]), load(FAMILIES["wan_i2v-2.2-5b"])
    options = {"dtype": torch.float32, "device": "cpu", "size": Size(**text.tiny.size)}
    model = load_model("wan_i2v", text.folder, **options)
    assert model.info.takes_image
    assert_close(dataclasses.replace(image, model=model).ours("a cat"), image.ours("a cat"))
    plan = CachePlan.from_steps(EngineReplayer(text.model, text.config, "tiny").provenance(), {3: (0, 3, 5)})
    folder = folder_of(text, tmp_path, family="wan_i2v")
    with pytest.raises(ModelLoadError, match=r"begins_with: .*None.*'image'"):
        load_engine(folder, load_config(folder / "model.json"), plan.to_json())


def test_the_published_plan_is_served(clip, tmp_path):
    defaults = {"num_inference_steps": 40, "budget": "17"}
    folder, plan = folder_of(clip, tmp_path, defaults=defaults), published_plan("wan2.1-i2v-14b")
    engine = load_engine(folder, load_config(folder / "model.json"), plan.to_json())
    info = engine.generate(GenerationRequest("a cat", seed=7, **clip.tiny.shown())).info
    engine.close()
    assert len(info["computed_steps"]) == 17


@pytest.mark.parametrize(
    ("tiny", "says"),
    [
        (
            Tiny("wan", "image", wan.tiny_wan_of_image_weights, wan.SIZE),
            "takes 36 channels, and WanPipeline gives it 16",
        ),
        (
            Tiny("wan_i2v", "text", lambda: wan.of_images(wan.tiny_wan()), wan.SIZE),
            "takes 16 channels, and WanImageToVideoPipeline gives it 36",
        ),
        (
            Tiny("wan_i2v", "blind", lambda: wan.of_images(wan.tiny_wan_i2v(), image_encoder=None), wan.SIZE),
            "give image_encoder",
        ),
        (
            Tiny("wan_i2v", "last", lambda: wan.tiny_wan_i2v(pos_embed_seq_len=10), wan.SIZE),
            "a first image to a last one",
        ),
        (
            Tiny("cogvideox_i2v", "text", lambda: cogvideox.of_images(cogvideox.tiny_2b()), cogvideox.SIZE),
            "takes 4 channels",
        ),
        (
            Tiny("cogvideox_i2v", "size", cogvideox.tiny_5b_i2v, cogvideox.SIZE | {"height": 48}),
            "positions are learned, for 48 x 32",
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_weights_that_cannot_begin_with_an_image_as_given_are_refused(load, tiny, says):
    with pytest.raises(ModelLoadError, match=says):
        load(tiny)


def test_pictures_reach_clip_whole_and_the_autoencoder_in_the_videos_size(clip):
    image = image_of(96, 144)
    job = clip.job("a cat", image=image)
    given, states = job.texts["cond"].given, job.texts["cond"].clip
    assert given.shape == (20, 2, 4, 6)
    theirs = clip.pipeline.encode_image(open_image(image), "cpu")[0]
    assert torch.equal(states, theirs)
    assert job.texts["cond"].given is job.texts["uncond"].given  # once a request
