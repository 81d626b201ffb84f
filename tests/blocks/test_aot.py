"""AOTInductor with its real compiler: compiled once, it runs on the loaded weights at every size."""

import shutil

import pytest
import torch

from lemica_backend.blocks import aot_engine
from lemica_backend.blocks.agreement import require_agreement
from lemica_backend.blocks.aot_engine import AotEngine
from lemica_backend.blocks.engines import Place
from lemica_backend.blocks.installing import build_engine, install_engine
from lemica_backend.blocks.stack import ROWS, TEXT, TOKENS, Range
from lemica_backend.config import ModelConfig
from lemica_backend.errors import ModelLoadError
from tests.blocks.conftest import RANGES, ToyStack

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="building needs a C++ compiler")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CONFIG = ModelConfig.model_validate({"blocks": {"engine": "aot", "max_rows": 3}})
SIZES = [{ROWS: rows, TOKENS: 5, TEXT: text} for rows in range(1, 4) for text in range(1, 7)]


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def built(request, tmp_path_factory):
    """A stack on a device, and its artifact."""
    stack, place = ToyStack().eval().to(request.param), Place(torch.device(request.param), torch.float32, RANGES)
    path = tmp_path_factory.mktemp("aot") / "stack.pt2"
    AotEngine().build(stack, place, path)
    return stack, place, path


@torch.inference_mode()
def test_it_runs_at_every_size_and_number_of_threads_without_a_compiler(built, monkeypatch, threads):
    stack, place, path = built
    monkeypatch.setenv("PATH", "")
    run = AotEngine().load(stack, place, path)
    for count in (1, 2):
        torch.set_num_threads(count)
        for sizes in SIZES:
            inputs = stack.example(sizes, place.device, seed=sizes[TEXT])
            assert torch.allclose(run(inputs), stack(*inputs), rtol=1e-4, atol=1e-5)
    assert require_agreement(stack, run, place) <= 1e-4


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@torch.inference_mode()
def test_it_holds_no_copy_of_the_weights(built):
    stack, place, path = built
    run, inputs = AotEngine().load(stack, place, path), stack.example(SIZES[-1], place.device)
    before = run(inputs)
    stack.map.weight.mul_(2)
    assert torch.allclose(run(inputs), stack(*inputs), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(run(inputs), before)
    stack.map.weight.div_(2)


def test_weights_that_the_model_does_not_have_are_refused(built):
    _, place, path = built
    other = ToyStack().to(place.device)
    other.renamed = other.map
    del other.map
    with pytest.raises(ModelLoadError, match=r"constants of its own: .*map\.weight"):
        AotEngine().load(other, place, path)


def test_building_without_a_compiler_says_so(toy, place, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    missing = torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")})
    with missing, pytest.raises(ModelLoadError, match=r"aot cannot compile the block stack: .*no-such-compiler"):
        AotEngine().build(toy, place, tmp_path / "stack.pt2")


def test_a_model_serves_its_artifact_and_on_another_processor_it_is_stale(open_tiny, tmp_path, toy, monkeypatch):
    def opened():
        model = open_tiny("latte-plain")
        model.stacks = [toy]  # compiling the real one takes a minute
        return model

    artifact = build_engine(opened(), tmp_path, CONFIG, "aot").artifact
    assert artifact.agreement <= 1e-4
    model = opened()
    install_engine(model, tmp_path, CONFIG)
    assert model.info.block_engine == "aot"
    fewer = tmp_path / "cpuinfo"
    fewer.write_text("model name\t: A Processor\nflags\t\t: sse sse2\n\nmodel name\t: Another\n")
    monkeypatch.setattr(aot_engine, "_CPU_INFO", fewer)
    with pytest.raises(ModelLoadError, match=r"is stale: device was .*, is \"cpu, A Processor, \w{8}\""):
        install_engine(opened(), tmp_path, CONFIG)


def test_the_blocks_of_a_family_agree_with_torch(open_tiny, tmp_path):
    stack = open_tiny("cogvideox-5b").stacks[0]
    place = Place(torch.device("cpu"), torch.float32, {**stack.served, ROWS: Range(1, 4), TEXT: Range(3, 48)})
    engine, path = AotEngine(), tmp_path / "stack.pt2"
    engine.build(stack, place, path)
    assert 0 < require_agreement(stack, engine.load(stack, place, path), place) <= 1e-4
