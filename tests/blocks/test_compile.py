"""torch.compile on a stack of a few numbers, with its real compiler: what was not warmed up is not compiled later."""

import logging
import shutil

import pytest
import torch
from pydantic import ValidationError

from lemica_backend.blocks.agreement import require_agreement
from lemica_backend.blocks.compile_engine import CompileEngine
from lemica_backend.blocks.engine_stack import EngineStack, take_fallbacks
from lemica_backend.blocks.installing import build_engine, install_engine
from lemica_backend.blocks.stack import ROWS, TEXT, TOKENS, Range
from lemica_backend.config import ModelConfig
from lemica_backend.errors import ModelLoadError
from tests.blocks.conftest import RANGES, WIDTH

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore"),  # of the compiler's own libraries
]


class Model:
    def __init__(self, *stacks):
        self.stacks = list(stacks)


@pytest.fixture
def run(toy, place):
    torch._dynamo.reset()
    yield CompileEngine().load(toy, place, None)
    torch._dynamo.reset()


@torch.inference_mode()
def test_declared_sizes_need_no_more_compiling(toy, place, run):
    stack = EngineStack(toy, run, RANGES)
    for rows in range(1, RANGES[ROWS].most + 1):
        for text in range(1, RANGES[TEXT].most + 1):
            inputs = toy.example({ROWS: rows, TOKENS: 5, TEXT: text}, "cpu", seed=rows + text)
            assert torch.allclose(stack(*inputs), toy(*inputs), rtol=1e-4, atol=1e-5)
    assert take_fallbacks(Model(stack)) == {}
    assert require_agreement(toy, run, place) <= 1e-4


@torch.inference_mode()
def test_what_would_be_compiled_in_service_is_logged_counted_and_run_eagerly(toy, run, caplog):
    stack = EngineStack(toy, run, RANGES)
    inputs = torch.randn(2, 5, WIDTH, dtype=torch.float64), torch.randn(2, 3, WIDTH, dtype=torch.float64), None
    toy.double()
    with caplog.at_level(logging.ERROR, "lemica_backend"):
        output = stack(*inputs)
    assert torch.equal(output, toy(*inputs))
    assert take_fallbacks(Model(stack)) == {"recompile": 2}
    assert "would be compiled inside a request" in caplog.text


def test_a_model_takes_it_without_an_artifact(open_tiny, tmp_path, toy):
    model = open_tiny("latte-plain")
    model.stacks = [toy]  # compiling the real one takes a minute
    config = ModelConfig.model_validate({"blocks": {"engine": "compile", "max_rows": 2}})
    assert build_engine(model, tmp_path, config, "compile").artifact is None
    install_engine(model, tmp_path, config)
    assert model.info.block_engine == "compile"
    assert not list(tmp_path.iterdir())


def test_cuda_graphs_are_refused_without_a_gpu_and_for_open_sizes(toy, place):
    with pytest.raises(ModelLoadError, match=r"blocks\.cuda_graphs: needs a GPU of CUDA, and the device is cpu"):
        CompileEngine().load(toy, place._replace(cuda_graphs=True), None)
    on_gpu = place._replace(cuda_graphs=True, device=torch.device("cuda"))
    with pytest.raises(ModelLoadError, match="a graph is for one size, and this model's text has 1 to 6"):
        CompileEngine().load(toy, on_gpu, None)
    with pytest.raises(ValidationError, match="cuda_graphs takes the engine compile, and engine is openvino"):
        ModelConfig.model_validate({"blocks": {"engine": "openvino", "cuda_graphs": True}})


def test_a_model_with_cuda_graphs_says_why_it_does_not_load_here(open_tiny, tmp_path, toy):
    model = open_tiny("latte-plain")
    model.stacks = [toy]
    blocks = {"engine": "compile", "cuda_graphs": True}
    with pytest.raises(ModelLoadError, match=r"blocks\.cuda_graphs"):
        install_engine(model, tmp_path, ModelConfig.model_validate({"blocks": blocks}))
    install_engine(model, tmp_path, ModelConfig.model_validate({"blocks": blocks | {"required": False}}))
    assert model.info.block_engine == "eager"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.inference_mode()
def test_cuda_graphs_agree_with_torch_at_every_number_of_rows(toy, place):
    ranges = RANGES | {TEXT: Range(3, 3)}
    on_gpu = place._replace(cuda_graphs=True, device=torch.device("cuda"), ranges=ranges)
    stack = EngineStack(toy.cuda(), CompileEngine().load(toy.cuda(), on_gpu, None), ranges)
    for rows in range(1, RANGES[ROWS].most + 1):
        inputs = toy.example({ROWS: rows, TOKENS: 5, TEXT: 3}, "cuda", seed=rows)
        kept, again = stack(*inputs), stack(*(each * 2 for each in inputs))
        assert torch.allclose(kept, toy(*inputs), rtol=1e-4, atol=1e-5)  # the second call left it alone
        assert not torch.equal(kept, again)
    assert take_fallbacks(Model(stack)) == {}
