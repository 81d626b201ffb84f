"""A broken or foreign weights folder or plan never becomes an engine."""

import dataclasses
import shutil

import pytest

from lemica_backend.config import ModelConfig
from lemica_backend.cost_model import CostModel
from lemica_backend.engine import load_engine
from lemica_backend.errors import ModelLoadError
from lemica_backend.opening import facts_of, open_model
from lemica_backend.plan_check import require_fit
from lemica_backend.profile import Profile
from lemica_planner import CachePlan, PlanEntry, PlanMismatchError


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


@pytest.mark.parametrize(
    "file",
    [
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "transformer/config.json",
    ],
)
def test_a_torn_file(model_dir, file):
    path = model_dir / "weights" / file
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelLoadError, match="cannot load"):
        open_model(model_dir, ModelConfig())


def test_a_plan_that_is_no_plan(model_dir):
    with pytest.raises(ModelLoadError, match="cache_plan"):
        load_engine(model_dir, ModelConfig(), "{")


def test_a_plan_with_an_unknown_operator_names_those_it_serves(model_dir, plan):
    foreign = dataclasses.replace(plan, provenance=dataclasses.replace(plan.provenance, operator="magic"))
    with pytest.raises(ModelLoadError, match=r"'magic'.*residual"):
        load_engine(model_dir, ModelConfig(), foreign.to_json())


@pytest.mark.parametrize(
    ("operators", "given", "message"),
    [
        (
            ("residual-fitted", "residual"),
            {},
            "step 1 of budget 3, 'residual-fitted' has 0 weights; allowed are 1:",
        ),
        (("residual-fitted", "residual"), {1: (0.5, 0.5)}, "has 2 weights; allowed are 1:"),
        (("residual-split", "residual"), {1: (1.0,)}, "has 1 weights; allowed are 2:"),
        (("residual", "residual"), {3: (0.5,)}, "step 3 of budget 3, 'residual' has 1 weights; allowed are 0:"),
    ],
)
def test_a_plan_whose_weights_do_not_fit_its_operators(model_dir, plan, operators, given, message):
    entry = PlanEntry((0, 2, 5), operators=operators, weights=given)
    broken = dataclasses.replace(plan, entries={3: entry}, names={})
    with pytest.raises(ModelLoadError, match=message):
        load_engine(model_dir, ModelConfig(), broken.to_json())


@pytest.mark.parametrize("budget", ["quick", "fast..quick", "quick..full"])
@pytest.mark.parametrize("with_plan", [True, False])
def test_a_default_budget_that_the_plan_lacks(model_dir, plan, with_plan, budget):
    config = ModelConfig.model_validate({"defaults": {"budget": budget}})
    with pytest.raises(ModelLoadError, match="quick"):
        load_engine(model_dir, config, plan.to_json() if with_plan else None)


def test_what_a_worker_finds_broken_is_told_to_whoever_loads(model_dir):
    path = model_dir / "weights/transformer/config.json"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelLoadError, match="cannot load"):
        load_engine(model_dir, ModelConfig(), None)


def test_another_text_encoder_is_another_model(model_dir, plan):
    path = model_dir / "weights/text_encoder/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ModelLoadError, match="weights_hash"):
        load_engine(model_dir, ModelConfig(), plan.to_json())


@pytest.mark.parametrize(
    "change", [{"weights_hash": "0" * 64}, {"scheduler": "EulerDiscreteScheduler"}, {"num_frames": 8}, {"height": 64}]
)
def test_a_plan_of_another_model_names_what_differs(model, plan, change):
    foreign = dataclasses.replace(plan, provenance=dataclasses.replace(plan.provenance, **change))
    facts = facts_of(model, ModelConfig(), plan, Profile(CostModel()))
    require_fit(plan, facts)
    with pytest.raises(PlanMismatchError, match=next(iter(change))):
        require_fit(CachePlan.from_json(foreign.to_json()), facts)
