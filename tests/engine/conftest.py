import pytest
from diffusers import LattePipeline

from lemica_backend.config import ModelConfig
from lemica_backend.engine import Engine
from lemica_backend.models.latte import LatteModel
from lemica_backend.profile import Profile
from lemica_planner import CachePlan, Provenance
from tests.engine.believing import Held, alone, config_of
from tests.tiny_latte import build_tiny_latte

STEPS = 6


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "weights"
    build_tiny_latte(folder)
    return folder


@pytest.fixture(scope="session")
def pipeline(weights):
    pipeline = LattePipeline.from_pretrained(weights, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def model(weights):
    import torch

    return LatteModel(weights, dtype=torch.float32, device="cpu")


@pytest.fixture(scope="session")
def config():
    return ModelConfig.model_validate({"defaults": {"num_inference_steps": STEPS, "guidance_scale": 4.0}})


@pytest.fixture(scope="session")
def plan(model):
    info = model.info
    provenance = Provenance(
        model="tiny",
        weights_hash=info.weights_hash,
        scheduler=info.scheduler,
        scheduler_config=info.scheduler_config,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
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


@pytest.fixture
def make_engine(model, plan):
    engines = []

    def make(cost=None, *, plan=plan, model=model, sizes=None, watcher=None, **sections):
        profile = Profile(cost or alone(), sizes or {})
        engines.append(Engine(model, config_of(**sections), plan, profile=profile, watcher=watcher))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def held(model):
    held = Held(model)
    yield held
    held.released.set()
