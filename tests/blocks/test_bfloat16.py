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
def served(open_tiny, tmp_path):
    """What an engine builds and loads: stack, place and file, which is not there yet."""
    stack = open_tiny("latte-plain").stacks[0]
    place = Place(CPU, torch.float32, {**stack.served, ROWS: Range(1, 4)}, "bfloat16")
    return stack, place, tmp_path / "stack.onnx"


@pytest.fixture
def engine():
    return engine_named("openvino", CPU, torch.float32, "bfloat16")


@pytest.mark.skipif(not HAS_BFLOAT16, reason="the processor has no bfloat16")
def test_it_rounds_and_not_by_much(engine, served):
    stack, place, _ = served
    engine.build(*served)
    off = require_agreement(stack, engine.load(*served), place)
    assert BOUNDS[torch.float32] < off <= BOUNDS[torch.bfloat16]


@pytest.mark.parametrize("use", ["build", "load"])
def test_a_processor_without_it_is_refused(use, engine, served, monkeypatch):
    """At once: nothing is exported, and no graph is looked for."""
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(ModelLoadError, match=r"no bfloat16 \(OpenVINO finds FP32, INT8\): take dtype"):
        getattr(engine, use)(*served)
    assert not served[-1].exists()


def test_it_rounds_nothing_but_float32():
    with pytest.raises(ModelLoadError, match="bfloat16 takes a dtype of float32, and dtype is float16"):
        engine_named("openvino", CPU, torch.float16, "bfloat16")
