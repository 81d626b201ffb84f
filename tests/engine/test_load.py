"""A broken or foreign weights folder or plan never becomes an engine."""

import dataclasses
import shutil

import pytest

from lemica_backend.config import ModelConfig
from lemica_backend.engine import load_engine
from lemica_backend.errors import ModelLoadError
from lemica_planner import CachePlan


@pytest.fixture
def model_dir(weights, tmp_path):
    shutil.copytree(weights, tmp_path / "weights")
    return tmp_path


def test_a_whole_folder_loads(model_dir, plan):
    engine = load_engine(model_dir, ModelConfig(), plan.to_json())
    engine.close()


def test_missing_weights(tmp_path):
    with pytest.raises(ModelLoadError, match="weights"):
        load_engine(tmp_path, ModelConfig(), None)


def test_torn_weights(model_dir):
    path = model_dir / "weights/transformer/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match="cannot load"):
        load_engine(model_dir, ModelConfig(), None)


def test_a_plan_that_is_no_plan(model_dir):
    with pytest.raises(ModelLoadError, match="cache_plan"):
        load_engine(model_dir, ModelConfig(), "{")


@pytest.mark.parametrize(
    "change", [{"weights_hash": "0" * 64}, {"scheduler": "EulerDiscreteScheduler"}, {"num_frames": 8}, {"height": 64}]
)
def test_a_plan_of_another_model_names_what_differs(model_dir, plan, change):
    foreign = dataclasses.replace(plan, provenance=dataclasses.replace(plan.provenance, **change))
    with pytest.raises(ModelLoadError, match=next(iter(change))):
        load_engine(model_dir, ModelConfig(), CachePlan.from_json(foreign.to_json()).to_json())
