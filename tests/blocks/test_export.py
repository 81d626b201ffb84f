"""ONNX graphs of the families' block stacks, run by ONNX Runtime and OpenVINO against torch's eager mode."""

import pytest
import torch

from lemica_backend.blocks.agreement import BOUNDS, largest_difference, require_agreement
from lemica_backend.blocks.engines import Place
from lemica_backend.blocks.stack import ROWS, TEXT, TOKENS, Range
from lemica_backend.errors import ModelLoadError

onnx = pytest.importorskip("onnx", reason="the extra `engines` is not installed")
CPU = torch.device("cpu")
NAMES = (
    "latte-plain",
    "open_sora-1.2",
    "wan-2.2",
    "wan_i2v-2.1",
    "wan_i2v-2.2-5b",
    "cogvideox-2b",
    "cogvideox-5b",
    "hunyuan_video-true-cfg",
    "hunyuan_video_15-guider",
    "ltx-0.9",
    "mochi-1",
)
OTHER_SIZES = {ROWS: Range(1, 5), TEXT: Range(3, 9)}
HALF = [
    ("latte-plain", torch.float16),
    ("latte-plain", torch.bfloat16),
    ("open_sora-1.2", torch.bfloat16),  # its autoencoder has no float16
    ("wan-2.2", torch.float16),
    ("wan-2.2", torch.bfloat16),
    ("cogvideox-5b", torch.float16),
    ("cogvideox-5b", torch.bfloat16),
]


@pytest.fixture(scope="module", params=NAMES)
def exported(request, open_tiny, tmp_path_factory):
    from lemica_backend.blocks.onnx_export import export_onnx

    stack = open_tiny(request.param).stacks[0]
    path = tmp_path_factory.mktemp(request.param) / "stack.onnx"
    export_onnx(stack, CPU, path)
    return stack, path


def engines():
    from lemica_backend.blocks.onnxruntime_engine import OnnxRuntimeEngine
    from lemica_backend.blocks.openvino_engine import OpenVinoEngine

    return OnnxRuntimeEngine(), OpenVinoEngine()


def test_engines_agree_with_torch_at_the_models_sizes_and_at_others(exported):
    stack, path = exported
    tokens = stack.served[TOKENS].most
    own = {**stack.served, ROWS: Range(1, 4)}
    other = {TOKENS: Range(tokens // 2, tokens + 1), **OTHER_SIZES}
    for engine in engines():
        for ranges in (own, other):
            place = Place(CPU, torch.float32, ranges)
            found = require_agreement(stack, engine.load(stack, place, path), place)
            assert 0 < found <= BOUNDS[torch.float32]


@pytest.mark.parametrize(("name", "dtype"), HALF)
def test_graphs_in_half_precision_stay_within_their_bound(name, dtype, open_tiny, tmp_path):
    from lemica_backend.blocks.onnx_export import export_onnx

    stack, path = open_tiny(name, dtype).stacks[0], tmp_path / "stack.onnx"
    export_onnx(stack, CPU, path)
    place = Place(CPU, dtype, {**stack.served, ROWS: Range(1, 4)})
    for engine in engines():
        if dtype in engine.dtypes:
            found = require_agreement(stack, engine.load(stack, place, path), place)
            assert BOUNDS[torch.float32] < found <= BOUNDS[dtype]  # more than float32's: it did run in half precision


def test_the_graph_is_plain(exported):
    """Opset 18 without scatters and loops, and every axis of the table open."""
    stack, path = exported
    graph = onnx.load(path)
    assert [(each.domain, each.version) for each in graph.opset_import] == [("", 18)]
    assert not {node.op_type for node in graph.graph.node} & {"ScatterND", "ScatterElements", "Loop", "If", "Scan"}
    assert [each.name for each in graph.graph.input] == [each.name for each in stack.inputs]
    dims = [dim.dim_param or dim.dim_value for each in graph.graph.input for dim in each.type.tensor_type.shape.dim]
    named = dict(zip([axis for each in stack.inputs for axis in each.shape], dims, strict=True))
    assert all(isinstance(dim, type(axis)) for axis, dim in named.items())
    assert dims == [named[axis] for each in stack.inputs for axis in each.shape]  # one symbol for each axis


def test_exporting_changes_nothing_in_the_model(exported):
    stack, _ = exported
    inputs = stack.example({ROWS: 2, TOKENS: stack.served[TOKENS].most, TEXT: stack.served[TEXT].most}, CPU)
    with torch.inference_mode():
        eager = stack(*inputs)
        with stack.for_export():
            whole = stack(*inputs)
        assert torch.equal(stack(*inputs), eager)
    assert (whole - eager).abs().max() <= 1e-6 * eager.abs().max()


def test_an_engine_that_is_off_is_refused(toy, place):
    def off(tensors):
        return toy(*tensors) * (1 + 1e-3)

    assert largest_difference(toy, off, place) == pytest.approx(1e-3, rel=0.01)
    with pytest.raises(ModelLoadError, match=r"differ from the eager ones by 0\.001; allowed are 0\.0001"):
        require_agreement(toy, off, place)
    with pytest.raises(ModelLoadError, match="differ"):
        require_agreement(toy, lambda tensors: toy(*tensors) * torch.nan, place)
