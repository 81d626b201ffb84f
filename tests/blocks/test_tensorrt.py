"""TensorRT: engines are really built here where TensorRT-RTX is installed; running them takes a GPU."""

import pytest
import torch

from lemica_backend.blocks.engines import Place, engine_named
from lemica_backend.blocks.installing import build_engine, install_engine
from lemica_backend.blocks.stack import ROWS, TEXT, TOKENS, Range
from lemica_backend.config import ModelConfig
from lemica_backend.errors import ModelLoadError

pytest.importorskip("onnx", reason="the extra `engines` is not installed")
trt = pytest.importorskip("tensorrt_rtx_bindings", reason="the extra `tensorrt` is not installed")
CONFIG = ModelConfig.model_validate({"blocks": {"engine": "tensorrt", "max_rows": 4, "max_text_tokens": 32}})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_block_stack_becomes_an_engine_with_a_profile_for_the_ranges(open_tiny, tmp_path, dtype):
    config = CONFIG.model_copy(update={"dtype": dtype})
    model = open_tiny("latte-plain", getattr(torch, dtype))
    built = build_engine(model, tmp_path, config, "tensorrt")
    assert built.artifact.agreement is None
    assert built.artifact.files[0].stat().st_size > 10_000
    assert not build_engine(model, tmp_path, config, "tensorrt").is_new
    wider = config.blocks.model_copy(update={"max_rows": 5})
    with pytest.raises(ModelLoadError, match="serves cuda here, and the device is cpu"):
        install_engine(model, tmp_path, config.model_copy(update={"blocks": wider}))


def test_a_graph_that_tensorrt_cannot_read_is_refused_with_its_words(toy, place, tmp_path):
    from lemica_backend.blocks.tensorrt_engine import _build

    graph = tmp_path / "broken.onnx"
    graph.write_bytes(b"no graph")
    with pytest.raises(ModelLoadError, match="cannot read the block stack"):
        _build(toy, place.ranges, graph, tmp_path / "timing")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_agrees_with_torch_on_a_gpu_or_says_why_not(open_tiny, tmp_path):
    from lemica_backend.blocks.agreement import require_agreement

    stack = open_tiny("latte-plain").stacks[0].cuda()
    tokens = stack.served[TOKENS]
    place = Place(torch.device("cuda"), torch.float32, {ROWS: Range(1, 4), TOKENS: tokens, TEXT: Range(1, 32)})
    engine = engine_named("tensorrt", place.device, place.dtype)
    path = tmp_path / "stack.engine"
    engine.build(stack, place, path)
    try:
        run = engine.load(stack, place, path)
    except ModelLoadError as error:
        pytest.skip(f"this GPU is not served: {error}")
    assert require_agreement(stack, run, place) > 0
