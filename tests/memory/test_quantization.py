"""Weights quantised by diffusers' own quantisers while the model loads: torchao's, which run on a CPU."""

import json
import re
from importlib.util import find_spec

import pytest
import torch
import typer
from typer.testing import CliRunner

from lemica_backend.config import ModelConfig, load_config
from lemica_backend.engine import Engine
from lemica_backend.errors import ModelLoadError
from lemica_backend.footprint import footprint
from lemica_backend.inspect_command import inspect
from lemica_backend.opening import open_model, open_worker
from lemica_backend.plan_check import require_fit
from lemica_backend.replay import EngineReplayer
from lemica_backend.types import GenerationRequest
from lemica_backend.worker import Facts
from lemica_planner import CachePlan, PlanMismatchError
from lemica_planner.config_writer import apply_plan
from tests.tiny import others
from tests.tiny.families import FAMILIES

torchao = pytest.importorskip("torchao", reason="the extra `quantization` is not installed")
INT8 = {"backend": "torchao", "kwargs": {"quant_type": "Int8WeightOnlyConfig"}}
BOTH = INT8 | {"components": ["transformer", "text_encoder"]}
STEPS = 4
QUANTISED = ["latte-plain", "wan-unipc", "cogvideox-2b", "hunyuan_video-embedded", "ltx-0.9", "mochi-1"]


def settings_of(tiny, **settings):
    defaults = {"num_inference_steps": STEPS, "guidance_scale": 4.0}
    return {"size": tiny.size, "options": tiny.options, "defaults": defaults, "threads": 1} | settings


def write(folder, tiny, **settings):
    """Write a model's folder, with its weights if they are not there."""
    if not (folder / "1").exists():
        tiny.build().save_pretrained(folder / "1" / "weights")
        (folder / "config.pbtxt").write_text('backend: "lemica"\n')
    (folder / "1" / "model.json").write_text(json.dumps(settings_of(tiny, **settings)))


def opened(folder, tiny, **settings):
    write(folder, tiny, **settings)
    return open_model(folder / "1", load_config(folder / "1" / "model.json"))


def latents_of(model, tiny):
    engine = Engine(model, ModelConfig.model_validate(settings_of(tiny)))
    try:
        return torch.from_numpy(engine.generate(GenerationRequest("a cat", seed=2)).latents)
    finally:
        engine.close()


def quantised(module):
    kinds = [type(each.weight).__name__ for each in module.modules() if isinstance(each, torch.nn.Linear)]
    return kinds.count("Int8Tensor")


@pytest.mark.parametrize("name", QUANTISED)
def test_a_family_serves_them_and_is_not_far_off(name, tmp_path):
    tiny = FAMILIES[name]
    plain, ours = opened(tmp_path, tiny), opened(tmp_path, tiny, quantization=BOTH)
    assert quantised(ours.networks[0])
    assert quantised(ours._pipeline.text_encoder)
    assert not quantised(plain.networks[0])
    theirs, found = latents_of(plain, tiny), latents_of(ours, tiny)
    assert 0 < (found - theirs).norm() < 0.1 * theirs.norm()


@pytest.mark.parametrize("name", ["latte-plain", "wan-unipc", "hunyuan_video-embedded"])
@pytest.mark.parametrize(
    ("dtype", "quantization"), [("bfloat16", None), ("bfloat16", BOTH), ("float32", BOTH)], ids=["plain", "int8", "f32"]
)
def test_inspect_counts_the_bytes_that_are_loaded(name, dtype, quantization, tmp_path):
    tiny = FAMILIES[name]
    model = opened(tmp_path, tiny, dtype=dtype, quantization=quantization)
    counted = footprint(tmp_path).parts
    for part, module in model._pipeline.components.items():
        if isinstance(module, torch.nn.Module) and not (part == "vae" and tiny.options.get("temporal_decoder")):
            assert counted[part][1] == sum(map(nbytes, module.parameters())), part


def nbytes(weight):
    if not hasattr(weight, "__tensor_flatten__"):
        return weight.nbytes
    return sum(getattr(weight, name).nbytes for name in weight.__tensor_flatten__()[0])


def test_a_plan_for_plain_weights_is_not_one_for_quantised_ones(tmp_path):
    tiny = FAMILIES["wan-unipc"]
    plain, ours = opened(tmp_path, tiny), opened(tmp_path, tiny, quantization=INT8)
    config = ModelConfig.model_validate(settings_of(tiny))
    plans = [
        CachePlan.from_steps(EngineReplayer(model, config, "tiny").provenance(), {2: (0, 3)}) for model in (plain, ours)
    ]
    for plan, own, other in zip(plans, (plain, ours), (ours, plain), strict=True):
        require_fit(plan, Facts(own.info, None))
        with pytest.raises(PlanMismatchError, match=r"\+torchao\(transformer\)"):
            require_fit(plan, Facts(other.info, None))


def test_it_is_told_what_they_change_beside_what_skipped_steps_do(tmp_path):
    tiny = FAMILIES["wan-unipc"]
    model = opened(tmp_path, tiny, quantization=INT8)
    config = load_config(tmp_path / "1" / "model.json")
    provenance = EngineReplayer(model, config, "tiny").provenance()
    plan = CachePlan.from_steps(provenance, {2: (0, 3)}, names={"fast": 2})
    apply_plan(tmp_path / "config.pbtxt", plan)
    (tmp_path / "prompts.txt").write_text("a cat\na dog on a hill\n")
    told = run(tmp_path, "--prompts", tmp_path / "prompts.txt")
    assert told.exit_code == 0, told.output
    mean, worst = map(float, re.search(r"latents_l1: (\S+), at worst (\S+) of 2", told.output).groups())
    assert 0 < mean <= worst < 0.1
    assert "what skipping steps costs by the plan" in told.output
    write(tmp_path, tiny)
    told = run(tmp_path, "--prompts", tmp_path / "prompts.txt")
    assert told.exit_code == 1
    assert "there is no quantization, so there is nothing to compare" in told.output


def run(*arguments):
    app = typer.Typer()
    app.command()(inspect)
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have products of fp8")
def test_what_takes_another_machine_is_said_by_the_command_and_at_load(tmp_path):
    tiny, fp8 = FAMILIES["latte-plain"], INT8 | {"kwargs": {"quant_type": "Float8DynamicActivationFloat8WeightConfig"}}
    with pytest.raises(ModelLoadError, match="Float8 dynamic quantization requires CUDA"):
        opened(tmp_path, tiny, quantization=fp8)
    told = run(tmp_path)
    assert told.exit_code == 1
    assert "torchao cannot do that here: Float8 dynamic quantization requires CUDA" in told.output


@pytest.mark.parametrize(
    ("quantization", "says"),
    [
        (INT8 | {"components": ["vae"]}, "components: got 'vae'; allowed are text_encoder, transformer"),
        (INT8 | {"kwargs": {"quant_type": "Int9"}}, "quant_type: got 'Int9'; allowed are .*Int8WeightOnlyConfig"),
        (INT8 | {"kwargs": {}}, "quant_type: got None; allowed are .*Int8WeightOnlyConfig"),
        (INT8 | {"kwargs": {"quant_type": {"Int8WeightOnlyConfig": {"bits": 3}}}}, "cannot be made: .*bits"),
        (INT8 | {"kwargs": INT8["kwargs"] | {"skip": []}}, "kwargs: got 'skip'; allowed are modules_to_not_convert"),
    ],
)
def test_what_cannot_be_is_said_at_load(quantization, says, tmp_path):
    with pytest.raises(ModelLoadError, match=says):
        opened(tmp_path, FAMILIES["wan-unipc"], quantization=quantization)


def test_a_package_that_is_missing_is_named(tmp_path):
    if find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed")
    with pytest.raises(ModelLoadError, match="the package bitsandbytes is not installed: pip install bitsandbytes"):
        opened(tmp_path, FAMILIES["wan-unipc"], quantization={"backend": "bitsandbytes_4bit"})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"quantization": {"backend": "int8"}}, "quantization.backend: got 'int8'"),
        ({"quantization": INT8 | {"bits": 8}}, "quantization.bits: no such field; allowed are backend, kwargs"),
        ({"quantization": INT8, "blocks": {"engine": "aot"}}, "'aot', which takes no quantised weights"),
    ],
)
def test_what_model_json_cannot_say(settings, says, tmp_path):
    (tmp_path / "model.json").write_text(json.dumps(settings))
    with pytest.raises(ModelLoadError, match=says):
        load_config(tmp_path / "model.json")


def test_open_sora_takes_none(tmp_path):
    with pytest.raises(ModelLoadError, match="family 'open_sora' takes none: leave it out"):
        opened(tmp_path, FAMILIES["open_sora-1.2"], quantization=INT8)


def test_a_pipeline_as_it_is_takes_them_too(tmp_path):
    others.tiny_flux().save_pretrained(tmp_path / "weights")
    settings = {"family": "pipeline", "limits": {"max_active": 1}, "size": others.IMAGE, "quantization": INT8}
    worker = open_worker(tmp_path, ModelConfig.model_validate(settings), "cpu", None, measures=True)
    assert "+torchao(transformer)" in worker.facts.info.weights_hash
