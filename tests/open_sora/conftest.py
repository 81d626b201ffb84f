import pytest

from lemica_backend.config import ModelConfig
from lemica_backend.engine import Engine
from lemica_planner import CachePlan, Provenance
from tests.tiny_open_sora import build_tiny_open_sora, make_tiny_open_sora

STEPS = 6


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny_open_sora") / "weights"
    build_tiny_open_sora(folder)
    return folder


@pytest.fixture(scope="session")
def pipeline():
    return make_tiny_open_sora()


@pytest.fixture(scope="session")
def model(weights):
    import torch

    from lemica_backend.models import load_model

    return load_model("open_sora", weights, dtype=torch.float32, device="cpu")


@pytest.fixture(scope="session")
def config():
    return ModelConfig.model_validate(
        {"family": "open_sora", "defaults": {"num_inference_steps": STEPS, "guidance_scale": 7.0}}
    )


@pytest.fixture(scope="session")
def plan(model):
    info = model.info
    provenance = Provenance(
        model="tiny",
        weights_hash=info.weights_hash,
        scheduler=info.scheduler,
        scheduler_config=info.scheduler_config,
        num_inference_steps=STEPS,
        guidance_scale=7.0,
        num_frames=info.num_frames,
        height=info.height,
        width=info.width,
    )
    return CachePlan.from_steps(provenance, {4: (0, 1, 3, 5), 3: (0, 2, 5)}, names={"slow": 4, "fast": 3})


@pytest.fixture
def engine(model, config, plan):
    engine = Engine(model, config, plan)
    yield engine
    engine.close()
