"""A tiny Latte: its weights on disk, the engine's model of it, the pipeline of diffusers, and a plan."""

import pytest
import torch
from diffusers import LattePipeline

from lemica_backend.models.latte import LatteModel
from tests.planner.tiny_diffusers import make_plan
from tests.tiny_latte import build_tiny_latte


@pytest.fixture(scope="session")
def latte_weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "weights"
    build_tiny_latte(folder)
    return folder


@pytest.fixture(scope="session")
def latte_model(latte_weights):
    return LatteModel(latte_weights, dtype=torch.float32, device="cpu")


@pytest.fixture
def latte(latte_weights):
    pipeline = LattePipeline.from_pretrained(latte_weights, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def latte_plan(latte_model):
    """Everything that can be compared is stated."""
    info = latte_model.info
    return make_plan(
        weights_hash=info.weights_hash,
        scheduler=info.scheduler,
        scheduler_config=info.scheduler_config,
        guidance_scale=4.0,
        num_frames=info.num_frames,
        height=info.height,
        width=info.width,
    )
