import pytest
import torch

from benchmarks.rivals.rival import OpenLatte, start
from lemica_backend.config import ModelConfig
from tests.tiny_latte import build_tiny_latte

STEPS = 12
PAIRS = 2  # of the tiny Latte


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "weights"
    build_tiny_latte(folder)
    model = OpenLatte(folder, dtype=torch.float32, device="cpu")
    model.pipeline.set_progress_bar_config(disable=True)
    return model


@pytest.fixture
def begin(model):
    defaults = {"num_inference_steps": STEPS, "guidance_scale": 4.0}
    return start(model, ModelConfig.model_validate({"defaults": defaults}), "a red circle", 7)
