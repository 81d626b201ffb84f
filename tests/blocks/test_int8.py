"""Matrices of 8-bit integers: `lemica compile` builds them, and says what they cost beside what the plan costs."""

import re

import pytest
import torch
from typer.testing import CliRunner

from lemica_backend.blocks.agreement import BOUNDS, INT8_BOUND, require_agreement
from lemica_backend.blocks.engines import Place
from lemica_backend.blocks.stack import ROWS, Range
from lemica_backend.config import load_config
from lemica_backend.errors import ModelLoadError
from lemica_backend.opening import open_model
from lemica_client.cli import app
from lemica_planner import CachePlan, PlanEntry, Provenance
from lemica_planner.config_writer import apply_plan
from tests.server.repository import FAST, SLOW, STEPS, make_model

onnx = pytest.importorskip("onnx", reason="the extra `engines` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `engines` is not installed")
PREDICTED = {"fast": 0.25, "slow": 0.125}


def run(*arguments):
    return CliRunner().invoke(app, ["compile", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder with a plan, and prompts beside it."""
    folder = tmp_path_factory.mktemp("repository") / "tiny"
    make_model(folder, settings={"blocks": {"engine": "onnxruntime", "precision": "int8", "max_rows": 4}})
    entries = {
        len(steps): PlanEntry(steps, (PREDICTED[name],) * (len(steps) - 1))
        for name, steps in (("fast", FAST), ("slow", SLOW))
    }
    provenance = Provenance(num_inference_steps=STEPS, metric="latents_l2")
    plan = CachePlan(provenance=provenance, entries=entries, names={"slow": len(SLOW), "fast": len(FAST)})
    apply_plan(folder / "config.pbtxt", plan)
    (folder / "prompts.txt").write_text("a red circle\na much longer prompt about a square\n")
    return folder


@pytest.fixture(scope="module")
def told(folder):
    told = run(folder, "--prompts", folder / "prompts.txt")
    assert told.exit_code == 0, told.output
    return told.output


def test_it_says_what_it_costs_beside_what_skipping_steps_costs(folder, told):
    assert "onnxruntime, float32 with matrices in int8: " in told
    assert "rows 1 to 4" in told
    off = float(re.search(r"mode: (\S+) of", told)[1])
    assert BOUNDS[load_dtype(folder)] < off <= INT8_BOUND  # rounded, and not by much
    mean, worst = map(float, re.search(r"latents_l2: (\S+), at worst (\S+) of 2", told).groups())
    assert 0 < mean <= worst
    assert "skipping steps costs by the plan: fast 0.25, slow 0.12" in told


def load_dtype(folder):
    model = opened(folder, precision="int8")
    return model.stacks[0].eager.inputs[0].dtype


def opened(folder, **blocks):
    config = load_config(folder / "1" / "model.json")
    blocks = config.blocks.model_copy(update=blocks)
    return open_model(folder / "1", config.model_copy(update={"blocks": blocks}))


def test_the_model_serves_it_and_says_so(folder, told):
    assert opened(folder).info.block_engine == "onnxruntime-int8"


def test_matrices_are_whole_numbers_and_attention_is_not(folder, told):
    (path,) = (folder / "1" / "blocks").glob("onnxruntime-int8-*/stack0.onnx")
    graph = onnx.load(path).graph
    kinds = {each.name: each.data_type for each in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    assert products
    assert {kinds[node.input[1]] for node in products} == {onnx.TensorProto.UINT8}
    assert not [node for node in graph.node if node.op_type == "MatMul" and set(node.input) & kinds.keys()]


def test_another_precision_is_another_artifact(folder, told):
    with pytest.raises(ModelLoadError, match=r'is stale: precision was "int8", is "dtype"'):
        opened(folder, precision="dtype")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--precision", "fp4"), "precision is 'fp4'; allowed are dtype, bfloat16, int8"),
        (("--engine", "aot", "--precision", "int8"), "'aot' serves dtype, and not int8"),
        (("--prompts", "nowhere.txt"), "nowhere.txt"),
    ],
)
def test_what_cannot_be_built_is_refused(folder, arguments, said):
    answer = run(folder, *arguments)
    assert answer.exit_code == 1
    assert said in answer.output


@pytest.mark.parametrize("name", ["cogvideox-5b", "mochi-1"])
def test_graphs_whose_matrices_the_quantiser_turns_over_are_rounded(name, open_tiny, tmp_path):
    from lemica_backend.blocks.onnxruntime_engine import OnnxRuntimeEngine

    stack, path = open_tiny(name).stacks[0], tmp_path / "stack.onnx"
    place = Place(torch.device("cpu"), torch.float32, {**stack.served, ROWS: Range(1, 4)}, "int8")
    engine = OnnxRuntimeEngine()
    engine.build(stack, place, path)
    off = require_agreement(stack, engine.load(stack, place, path), place)
    assert BOUNDS[torch.float32] < off <= INT8_BOUND


def test_a_graph_that_cannot_be_rounded_is_refused(tmp_path):
    from lemica_backend.blocks.onnxruntime_engine import _round_matrices

    (tmp_path / "whole.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelLoadError, match="cannot round the matrices of this block stack"):
        _round_matrices(tmp_path / "whole.onnx", tmp_path / "rounded.onnx", is_large=False)
