"""The table of tensors, against the config.pbtxt that ships and against what Triton calls the types."""

import json
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype

from lemica_backend.protocol import INPUTS, OUTPUTS, STREAM_INPUTS

MODELS = Path(__file__).parents[2] / "model_repository"
CONFIG = MODELS / "latte_shapes" / "config.pbtxt"


@pytest.fixture(scope="module")
def config():
    return text_format.Parse(CONFIG.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def as_declared(tensor):
    return tensor.name, model_config_pb2.DataType.Name(tensor.data_type), tuple(tensor.dims)


def as_in_table(spec):
    return spec.name, spec.triton_type, spec.dims


def test_shipped_config_declares_exactly_the_table(config):
    assert [as_declared(tensor) for tensor in config.input] == [as_in_table(spec) for spec in INPUTS]
    assert [as_declared(tensor) for tensor in config.output] == [as_in_table(spec) for spec in OUTPUTS]
    assert [tensor.optional for tensor in config.input] == [not spec.required for spec in INPUTS]


def test_shipped_stream_declares_the_table_of_streams(config):
    text = (MODELS / "latte_shapes_stream" / "config.pbtxt").read_text()
    stream = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert [as_declared(tensor) for tensor in stream.input] == [as_in_table(spec) for spec in STREAM_INPUTS]
    assert list(stream.output) == list(config.output)
    assert stream.model_transaction_policy.decoupled
    assert stream.max_batch_size == 0
    assert json.loads((MODELS / "latte_shapes_stream" / "1" / "model.json").read_text()) == {"engine": "latte_shapes"}


def test_shipped_config_batches_without_delay_and_has_one_engine(config):
    assert config.backend == "lemica"
    assert config.max_batch_size == 4
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert [(group.count, group.kind) for group in config.instance_group] == [
        (1, model_config_pb2.ModelInstanceGroup.KIND_MODEL)
    ]


@pytest.mark.parametrize("spec", [*STREAM_INPUTS, *OUTPUTS], ids=lambda spec: spec.name)
def test_numpy_type_is_what_triton_calls_it(spec):
    name = {"TYPE_STRING": "BYTES"}.get(spec.triton_type, spec.triton_type.removeprefix("TYPE_"))
    assert np_to_triton_dtype(spec.dtype) == name
    assert np.dtype(spec.dtype) == spec.dtype
