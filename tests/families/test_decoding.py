"""Decoding in tiles and slices, as model.json says."""

import pytest
import torch

from lemica_backend.config import Decode, ModelConfig
from lemica_backend.errors import ModelLoadError
from lemica_backend.opening import open_model, open_worker
from lemica_backend.pipelines.worker import PipelineWorker
from tests.tiny import others
from tests.tiny.families import FAMILIES


@pytest.fixture
def folder_of(tmp_path):
    def folder_of(build):
        build().save_pretrained(tmp_path / "weights")
        return tmp_path

    return folder_of


def opened(folder, tiny, **decode):
    return open_model(folder, ModelConfig(size=tiny.size, options=tiny.options, decode=Decode(**decode)))


@pytest.mark.parametrize("name", ["latte-plain", "wan-unipc", "cogvideox-2b", "ltx-0.9", "mochi-1"])
def test_small_videos_in_slices_and_tiles_are_the_same(folder_of, name):
    tiny = FAMILIES[name]
    folder = folder_of(tiny.build)
    whole, cut = opened(folder, tiny), opened(folder, tiny, tiling=True, slicing=True)
    assert (cut.autoencoder.use_tiling, cut.autoencoder.use_slicing) == (True, True)
    with torch.inference_mode():
        frames = [model.decode(model.initial_noise(3), 3).astype(int) for model in (whole, cut)]
    assert abs(frames[0] - frames[1]).max() <= 1


def test_an_autoencoder_without_tiles_says_so(folder_of):
    tiny = FAMILIES["open_sora-1.2"]
    with pytest.raises(ModelLoadError, match=r"decode\.tiling: .* cannot: leave it out"):
        opened(folder_of(tiny.build), tiny, tiling=True)


def test_a_pipeline_that_decodes_in_tiles_only_is_served_with_them(folder_of):
    folder = folder_of(others.allegro)
    settings = {
        "family": "pipeline",
        "limits": {"max_active": 1},
        "size": {"height": 64, "width": 48, "num_frames": 8},
        "options": {"clean_caption": False, "max_sequence_length": 64},
    }
    with pytest.raises(ModelLoadError, match="tiling"):
        open_worker(folder, ModelConfig.model_validate(settings), "cpu", None, measures=True)
    tiled = ModelConfig.model_validate(settings | {"decode": {"tiling": True}})
    assert isinstance(open_worker(folder, tiled, "cpu", None, measures=True), PipelineWorker)
