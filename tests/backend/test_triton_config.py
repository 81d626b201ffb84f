"""What the backend makes of a config.pbtxt, with the class that Triton itself passes in."""

import importlib.util
import json
from pathlib import Path

import pytest

from lemica_backend.errors import ModelLoadError
from lemica_backend.protocol import INPUTS, OUTPUTS, STREAM_INPUTS
from lemica_backend.triton_config import cache_plan, check_config, complete_config, instance_device, version_dir

DECOUPLED = {"model_transaction_policy": {"decoupled": True}}


@pytest.fixture(scope="module")
def model_config_class():
    package = importlib.util.find_spec("pytriton")
    if package is None:
        pytest.skip("nvidia-pytriton, which carries Triton's own class, is not installed")
    path = Path(package.origin).parent / "tritonserver" / "backends" / "python" / "triton_python_backend_utils.py"
    spec = importlib.util.spec_from_file_location("triton_python_backend_utils", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


@pytest.fixture
def complete(model_config_class):
    def complete(**given):
        bare = {"name": "m", "max_batch_size": 0, "input": [], "output": []}
        config = model_config_class(json.dumps(bare | given))
        complete_config(config)
        return config.as_dict()

    return complete


def declared(name, data_type="TYPE_STRING", dims=(1,), optional=False):
    return {"name": name, "data_type": data_type, "dims": list(dims), "optional": optional}


def test_bare_config_gets_everything(complete):
    config = complete()
    assert [tensor["name"] for tensor in config["input"]] == [spec.name for spec in INPUTS]
    assert [tensor["optional"] for tensor in config["input"]] == [not spec.required for spec in INPUTS]
    assert [tensor["dims"] for tensor in config["output"]] == [list(spec.dims) for spec in OUTPUTS]
    assert config["max_batch_size"] == 4
    assert config["dynamic_batching"] == {}


def test_decoupled_config_gets_no_batches_and_one_input_more(complete):
    config = complete(**DECOUPLED)
    assert [tensor["name"] for tensor in config["input"]] == [spec.name for spec in STREAM_INPUTS]
    assert config["max_batch_size"] == 0
    assert "dynamic_batching" not in config


def test_what_is_given_stays(complete):
    batching = {"max_queue_delay_microseconds": 7}
    config = complete(max_batch_size=2, dynamic_batching=batching, input=[declared("prompt")])
    assert (config["max_batch_size"], config["dynamic_batching"]) == (2, batching)
    assert len(config["input"]) == len(INPUTS)


def test_declared_tensors_without_a_batch_size_are_served_without_batches(complete):
    config = complete(input=[declared("prompt")])
    assert config["max_batch_size"] == 0
    assert "dynamic_batching" not in config


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"input": [declared("promt")]}, "unknown input 'promt'; allowed are prompt, negative_prompt"),
        ({"output": [declared("frames")]}, "unknown output 'frames'; allowed are video, video_file, info"),
        ({"input": [declared("prompt", "TYPE_INT32")]}, "input prompt is declared TYPE_INT32; allowed is TYPE_STRING"),
        ({"input": [declared("prompt", dims=(2,))]}, "input prompt is declared with dims [2]; allowed is [1]"),
        ({"output": [declared("video", "TYPE_FP32", (-1, -1, -1, 3))]}, "output video is declared TYPE_FP32"),
        ({"input": [declared("prompt", optional=True)]}, "input prompt must be declared optional: false"),
        ({"input": [declared("seed", "TYPE_INT64")]}, "input seed must be declared optional: true"),
        (DECOUPLED | {"max_batch_size": 2}, "max_batch_size is 2; a decoupled model takes single requests only"),
        ({"input": [declared("preview_every", "TYPE_INT32", optional=True)]}, "unknown input 'preview_every'"),
        ({"sequence_batching": {}}, "sequence_batching is not supported"),
        ({"parameters": {"cacheplan": {"string_value": "{}"}}}, "unknown parameter 'cacheplan'; allowed is cache_plan"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_config_that_does_not_fit_is_refused(complete, given, said):
    with pytest.raises(ModelLoadError) as caught:
        complete(**given)
    assert str(caught.value).startswith("config.pbtxt: ")
    assert said in str(caught.value)


def test_tritons_own_parameters_pass():
    check_config({"parameters": {"FORCE_CPU_ONLY_INPUT_TENSORS": {"string_value": "yes"}}})


def test_plan_comes_from_the_parameter():
    assert cache_plan({"parameters": {"cache_plan": {"string_value": "{}"}}}) == "{}"
    assert cache_plan({"parameters": {"cache_plan": {"string_value": ""}}}) is None
    assert cache_plan({}) is None


def test_where_an_instance_runs():
    args = {"model_repository": "/models/m", "model_version": "3", "model_instance_device_id": "2"}
    assert version_dir(args) == Path("/models/m/3")
    assert instance_device(args | {"model_instance_kind": "GPU"}) == "cuda:2"
    assert instance_device(args | {"model_instance_kind": "CPU"}) == "auto"
    assert instance_device(args | {"model_instance_kind": "MODEL"}) == "auto"
