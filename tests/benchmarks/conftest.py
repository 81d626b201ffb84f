"""Two models of random weights in folders that the engine opens, and a distance that needs no downloaded weights."""

import json

import numpy as np
import pytest

from benchmarks.models import open_folder
from demo.metrics import Quality, psnr, ssim
from tests.tiny_latte import build_tiny_latte
from tests.tiny_open_sora import build_tiny_open_sora

STEPS = 10
OPEN_SORA_STEPS = 6


def cheap_compare(frames, reference):
    """Stand in for `demo.metrics.compare`: LPIPS becomes the mean absolute difference."""
    distance = float(np.abs(frames.astype(float) - reference).mean())
    return Quality(distance, ssim(frames, reference), psnr(frames, reference))


@pytest.fixture
def no_lpips(monkeypatch):
    monkeypatch.setattr("benchmarks.videos.compare", cheap_compare)
    monkeypatch.setattr("benchmarks.paper.options.ensure_weights", lambda: None)


def build_folder(folder, num_steps):
    build_tiny_latte(folder / "1" / "weights")
    defaults = {"num_inference_steps": num_steps, "guidance_scale": 4.0}
    (folder / "1" / "model.json").write_text(json.dumps({"threads": 1, "defaults": defaults}))
    return folder


@pytest.fixture(scope="session")
def tiny_a(tmp_path_factory):
    return build_folder(tmp_path_factory.mktemp("models") / "tiny_a", STEPS)


@pytest.fixture(scope="session")
def tiny_b(tmp_path_factory):
    """Other weights than those of `tiny_a`, and more steps."""
    from safetensors.torch import load_file, save_file

    folder = build_folder(tmp_path_factory.mktemp("models") / "tiny_b", STEPS + 5)
    path = folder / "1" / "weights" / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file({name: weight * 1.1 for name, weight in weights.items()}, path, {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def tiny_open_sora(tmp_path_factory):
    """A model of another family, with rectified flow and fewer steps than `tiny_a`."""
    folder = tmp_path_factory.mktemp("models") / "tiny_open_sora"
    build_tiny_open_sora(folder / "1" / "weights")
    defaults = {"num_inference_steps": OPEN_SORA_STEPS, "guidance_scale": 7.0}
    config = {"family": "open_sora", "threads": 1, "defaults": defaults}
    (folder / "1" / "model.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def opened(tiny_a):
    return open_folder(tiny_a)
