"""TensorRT: engines are really built here where TensorRT-RTX is installed; running them takes a GPU."""

from contextlib import nullcontext
from statistics import median

import pytest
import torch

from lemica_backend.blocks.engines import Place, engine_named
from lemica_backend.blocks.installing import build_engine, install_engine
from lemica_backend.blocks.stack import ROWS, TEXT, TOKENS, Range, StackInput
from lemica_backend.config import ModelConfig
from lemica_backend.errors import ModelLoadError

pytest.importorskip("onnx", reason="the extra `engines` is not installed")
trt = pytest.importorskip("tensorrt_rtx_bindings", reason="the extra `tensorrt` is not installed")
CONFIG = ModelConfig.model_validate({"blocks": {"engine": "tensorrt", "max_rows": 4, "max_text_tokens": 32}})


DTYPES = ["float32", "float16", "bfloat16"]
ROUNDS = 20


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_block_stack_becomes_an_engine(open_tiny, tmp_path, dtype):
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


def test_the_profile_spans_the_ranges_and_is_tuned_for_one_request_with_guidance():
    from lemica_backend.blocks.tensorrt_engine import _profile

    ranges = {ROWS: Range(1, 6), TOKENS: Range(5, 5), TEXT: Range(2, 32)}
    text = StackInput("text", (ROWS, TEXT, 4), torch.float32)
    assert _profile(text, ranges) == ((1, 2, 4), (2, 32, 4), (6, 32, 4))
    assert _profile(text, ranges | {ROWS: Range(1, 1)}) == ((1, 2, 4), (1, 32, 4), (1, 32, 4))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may run it")
def test_an_engine_that_cannot_run_here_is_refused_with_tensorrts_words(toy, place, tmp_path, monkeypatch):
    engine, path = engine_named("tensorrt", place.device, place.dtype, builds=True), tmp_path / "a" / "stack.engine"
    path.parent.mkdir()
    engine.build(toy, place, path)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())  # torch knows of no GPU to choose
    with pytest.raises(ModelLoadError, match=r"cannot run the block stack on this GPU: .*(?i:cuda)"):
        engine.load(toy, place, path)


class Timings:
    """The part of a builder's configuration that keeps timings, which takes those of one version only."""

    def __init__(self, version):
        self.version, self.cache = version, None

    def create_timing_cache(self, told):
        return None if told == b"no timings" else Cache(told or self.version)

    def set_timing_cache(self, cache, ignore_mismatch):
        if not ignore_mismatch and not cache.told.startswith(self.version):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache


class Cache:
    def __init__(self, told):
        self.told = told

    def serialize(self):
        return self.told


@pytest.mark.parametrize(
    ("kept", "taken"), [(None, b"2"), (b"2, timed", b"2, timed"), (b"1, timed", b"2"), (b"no timings", b"2")]
)
def test_timings_of_another_version_or_gpu_do_not_stop_a_build(tmp_path, kept, taken):
    from lemica_backend.blocks.tensorrt_engine import _keep_timings, _take_timings

    path, config = tmp_path / "tensorrt.timing", Timings(b"2")
    if kept is not None:
        path.write_bytes(kept)
    _take_timings(config, path)
    _keep_timings(config, path)
    assert path.read_bytes() == taken


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_it_agrees_with_torch_on_a_gpu_or_says_why_not(open_tiny, tmp_path, capsys, dtype):
    from lemica_backend.blocks.agreement import require_agreement

    stack = open_tiny("latte-plain", getattr(torch, dtype)).stacks[0].cuda()
    tokens = stack.served[TOKENS]
    ranges = {ROWS: Range(1, 4), TOKENS: tokens, TEXT: Range(1, 32)}
    place = Place(torch.device("cuda"), getattr(torch, dtype), ranges)
    engine = engine_named("tensorrt", place.device, place.dtype)
    path = tmp_path / "a" / "stack.engine"
    path.parent.mkdir()
    engine.build(stack, place, path)
    try:
        run = engine.load(stack, place, path)
    except ModelLoadError as error:
        pytest.skip(f"this GPU is not served: {error}")
    assert require_agreement(stack, run, place) > 0
    inputs = stack.example({ROWS: 2, TOKENS: tokens.most, TEXT: 32}, "cuda")
    eager, ours = medians_ms((lambda: stack(*inputs), lambda: run(inputs)))
    with capsys.disabled():
        print(f"\nTensorRT, {dtype}, a tiny Latte's blocks: {ours:.3f} ms, {eager / ours:.2f} times eager")


def medians_ms(calls):
    """Return how long the GPU takes for each; they take turns."""
    taken = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, times in zip(calls, taken, strict=True):
            begun, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begun.record()
            call()
            done.record()
            done.synchronize()
            times.append(begun.elapsed_time(done))
    return [median(times) for times in taken]
