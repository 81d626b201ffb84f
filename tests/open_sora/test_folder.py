"""Folders: written and read again, made of the published files, and broken ones."""

import json
import shutil
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lemica_backend.config import ModelConfig
from lemica_backend.engine import load_engine
from lemica_backend.errors import ModelLoadError
from lemica_backend.models.open_sora import OpenSoraPipeline, VideoSettings, __main__, read_official
from lemica_backend.models.open_sora.transformer import STDiT3
from lemica_backend.models.open_sora.vae import OpenSoraVAE
from lemica_backend.opening import open_model
from tests.open_sora import reference
from tests.tiny_open_sora import TRANSFORMER, VAE, make_tiny_open_sora

CONFIG = ModelConfig(family="open_sora")
PARTS = ("transformer", "vae", "text_encoder")


@pytest.fixture
def model_dir(weights, tmp_path):
    shutil.copytree(weights, tmp_path / "weights")
    return tmp_path


@pytest.fixture
def official(pipeline, tmp_path):
    """Lay the tiny weights out as the authors published theirs."""
    stated = {**TRANSFORMER, "patch_size": [1, 2, 2], "qk_norm": True, "pred_sigma": True, "model_type": "STDiT3"}
    for name in ("transformer", "vae"):
        (tmp_path / name).mkdir()
        save_file(getattr(pipeline, name).state_dict(), tmp_path / name / "model.safetensors")
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(stated))
    pipeline.text_encoder.save_pretrained(tmp_path / "t5")
    pipeline.tokenizer.save_pretrained(tmp_path / "t5")
    return tmp_path / "transformer", tmp_path / "vae", tmp_path / "t5"


def assert_same_weights(ours, theirs):
    for part in PARTS:
        one, other = getattr(ours, part).state_dict(), getattr(theirs, part).state_dict()
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_folder_is_read_as_it_was_written(weights, pipeline):
    again = OpenSoraPipeline.from_pretrained(weights, dtype=torch.float32)
    assert_same_weights(again, pipeline)
    assert again.video == pipeline.video
    assert again.scheduler.config.shift == pipeline.video.timestep_shift
    assert (reference.sample(again, "a cat", steps=2) == reference.sample(pipeline, "a cat", steps=2)).all()


def test_a_folder_is_in_the_layout_of_diffusers_with_safetensors_only(weights):
    index = json.loads((weights / "model_index.json").read_text())
    assert {path.name for path in weights.iterdir() if path.is_dir()} == {*PARTS, "tokenizer", "scheduler"} <= {*index}
    assert len(list(weights.rglob("*.safetensors"))) == 3
    assert not [path for path in weights.rglob("*") if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]


@torch.no_grad()
def test_the_published_sizes_make_480p():
    """On the meta device, which knows shapes only."""
    with torch.device("meta"):
        net, vae = STDiT3(), OpenSoraVAE()
        latents, text = torch.empty(2, 4, 15, 60, 106), torch.empty(2, 300, 4096)
        mask, ones = torch.ones(2, 300, dtype=torch.bool), torch.ones(2)
        output = net(latents, ones, text, text_mask=mask, fps=ones, height=480, width=854)
        assert output.shape == (2, 8, 15, 60, 106)
        assert vae.decode(latents[:1], 51).shape == (1, 3, 51, 480, 848)
    assert VideoSettings().num_frames == 51
    assert vae.latent_frames(51) == 15


def test_weights_are_read_in_the_precision_asked_for(weights):
    pipeline = OpenSoraPipeline.from_pretrained(weights, dtype=torch.bfloat16)
    assert {pipeline.transformer.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.bfloat16}


def test_bfloat16_is_near_float32_and_float16_is_refused(model_dir, model):
    coarse = open_model(model_dir, CONFIG.model_copy(update={"dtype": "bfloat16"}))
    noise, timesteps = model.initial_noise(0)[None], torch.tensor([500.0])
    outputs = []
    for each in (model, coarse):
        with torch.inference_mode():
            stem = each.stem(noise, timesteps)
            texts = [each.encode_text("a cat", "", ("cond",))["cond"]]
            outputs.append(each.head(each.blocks(stem, texts), stem))
    assert outputs[1].dtype == torch.float32
    assert 0 < (outputs[0] - outputs[1]).abs().mean() < 0.03 * outputs[0].abs().mean()
    with pytest.raises(ModelLoadError, match="float16"):
        open_model(model_dir, CONFIG.model_copy(update={"dtype": "float16"}))


def test_the_published_files_become_the_same_pipeline(official, pipeline, tmp_path):
    read = read_official(*official, video=pipeline.video, dtype=torch.float32, vae_config=VAE)
    assert_same_weights(read, pipeline)
    read.save_pretrained(tmp_path / "out")
    again = OpenSoraPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert (reference.sample(again, "a cat", steps=2) == reference.sample(pipeline, "a cat", steps=2)).all()


@pytest.mark.parametrize("change", [{"qk_norm": False}, {"patch_size": [2, 2, 2]}, {"pred_sigma": False}])
def test_a_transformer_of_another_kind_is_refused(official, pipeline, change):
    path = official[0] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="not known"):
        read_official(*official, video=pipeline.video, dtype=torch.float32, vae_config=VAE)


def test_published_files_with_a_tensor_too_few_are_refused(official, pipeline):
    path = official[1] / "model.safetensors"
    tensors = load_file(path)
    del tensors["shift"]
    save_file(tensors, path)
    with pytest.raises(RuntimeError, match="shift"):
        read_official(*official, video=pipeline.video, dtype=torch.float32, vae_config=VAE)


def test_the_command_writes_a_folder_for_the_size_asked_for(official, tmp_path, monkeypatch):
    monkeypatch.setattr(__main__, "read_official", partial(read_official, vae_config=VAE))
    app = __main__.typer.Typer()
    app.command()(__main__.convert)
    size = ["--num-frames", "34", "--height", "32", "--width", "48", "--dtype", "float32"]
    result = CliRunner().invoke(app, [*map(str, official), str(tmp_path / "out"), *size])
    assert result.exit_code == 0, result.output
    assert OpenSoraPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32).video == VideoSettings(
        num_frames=34, height=32, width=48
    )


def edit_index(model_dir, **changes):
    path = model_dir / "weights" / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"_class_name": "LattePipeline"}, "LattePipeline"),
        ({"video": {"frames": 3}}, "frames"),
        ({"video": {"num_frames": 0}}, "num_frames"),
        ({"video": {"num_frames": 16}}, "at least 17"),
    ],
)
def test_an_index_that_cannot_be_served_is_named(model_dir, changes, says):
    edit_index(model_dir, **changes)
    with pytest.raises(ModelLoadError, match=says):
        open_model(model_dir, CONFIG)


@pytest.mark.parametrize("part", PARTS)
def test_a_torn_file(model_dir, part):
    path = next((model_dir / "weights" / part).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelLoadError, match="cannot load"):
        open_model(model_dir, CONFIG)


@pytest.mark.parametrize(
    ("part", "name"),
    [("transformer", "rope.freqs"), ("vae", "shift"), ("text_encoder", "encoder.final_layer_norm.weight")],
)
def test_a_tensor_too_few_is_not_made_up(model_dir, part, name):
    path = next((model_dir / "weights" / part).glob("*.safetensors"))
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ModelLoadError, match=name):
        open_model(model_dir, CONFIG)


@pytest.mark.parametrize("part", PARTS)
def test_weights_that_are_no_safetensors_are_not_read(model_dir, part):
    path = next((model_dir / "weights" / part).glob("*.safetensors"))
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(ModelLoadError, match="cannot load"):
        open_model(model_dir, CONFIG)


def test_a_folder_served_at_another_size_refuses_the_plan(model_dir, plan):
    video = {"num_frames": 34, "height": 36, "width": 58, "clean_caption": False}
    edit_index(model_dir, video=video)
    with pytest.raises(ModelLoadError, match=r"num_frames.*scheduler_config|scheduler_config.*num_frames"):
        load_engine(model_dir, CONFIG, plan.to_json())


def test_a_folder_for_a_single_image_tells_the_model_so():
    pipeline = make_tiny_open_sora(num_frames=1)
    assert pipeline.video.conditioning_fps == 120
    assert pipeline.video.timestep_shift == pytest.approx((36 * 58) ** 0.5 / 512)
