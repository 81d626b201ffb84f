"""Blocks rounded to bfloat16 by OpenVINO: only where the processor has it, and then for real."""

import pytest
import torch

from lemica_backend.blocks.agreement import BOUNDS, require_agreement
from lemica_backend.blocks.engines import Place, engine_named
from lemica_backend.blocks.stack import ROWS, Range
from lemica_backend.errors import ModelLoadError

openvino = pytest.importorskip("openvino", reason="the extra `engines` is not installed")
CPU = torch.device("cpu")
HAS_BFLOAT16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture
def built(open_tiny, tmp_path):
    stack, path = open_tiny("latte-plain").stacks[0], tmp_path / "stack.onnx"
    place = Place(CPU, torch.float32, {**stack.served, ROWS: Range(1, 4)}, "bfloat16")
    engine = engine_named("openvino", CPU, torch.float32, "bfloat16")
    engine.build(stack, place, path)
    return engine, stack, place, path


@pytest.mark.skipif(not HAS_BFLOAT16, reason="the processor has no bfloat16")
def test_it_rounds_and_not_by_much(built):
    engine, stack, place, path = built
    off = require_agreement(stack, engine.load(stack, place, path), place)
    assert BOUNDS[torch.float32] < off <= BOUNDS[torch.bfloat16]


def test_a_processor_without_it_is_refused(built, monkeypatch):
    engine, stack, place, path = built
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(ModelLoadError, match=r"no bfloat16 \(OpenVINO finds FP32, INT8\): take dtype"):
        engine.load(stack, place, path)


def test_it_rounds_nothing_but_float32():
    with pytest.raises(ModelLoadError, match="bfloat16 takes a dtype of float32, and dtype is float16"):
        engine_named("openvino", CPU, torch.float16, "bfloat16")
