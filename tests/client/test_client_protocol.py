"""From Python values to tensors, and the table of tensors against the server's own."""

import numpy as np
import pytest

from lemica_backend import protocol as server
from lemica_client import InvalidRequestError, protocol
from lemica_client.encode import FILE_FORMATS
from lemica_client.protocol import add_batch_dimension, build_inputs


def tensor(**option):
    return {built.name: built for built in build_inputs({"prompt": "x", **option})}[next(iter(option))]


@pytest.mark.parametrize(
    ("name", "value", "datatype", "array"),
    [
        ("prompt", "a cat", "BYTES", np.array([b"a cat"], dtype=object)),
        ("prompt", "", "BYTES", np.array([b""], dtype=object)),
        ("negative_prompt", "Größe \N{CAT FACE}", "BYTES", np.array(["Größe \N{CAT FACE}".encode()], dtype=object)),
        ("seed", 2**63 - 1, "INT64", np.array([2**63 - 1])),
        ("seed", np.uint8(5), "INT64", np.array([5])),
        ("guidance_scale", 2, "FP32", np.array([2], np.float32)),
        ("guidance_scale", float("nan"), "FP32", np.array([np.nan], np.float32)),
        ("guidance_scale", 1e300, "FP32", np.array([np.inf], np.float32)),
        ("num_inference_steps", 50, "INT32", np.array([50], np.int32)),
        ("height", -1, "INT32", np.array([-1], np.int32)),
        ("budget", "fast", "BYTES", np.array([b"fast"], dtype=object)),
        ("budget", 12, "BYTES", np.array([b"12"], dtype=object)),
        ("budget", np.int64(12), "BYTES", np.array([b"12"], dtype=object)),
    ],
)
def test_a_value_becomes_its_tensor(name, value, datatype, array):
    built = tensor(**{name: value})
    assert (built.name, built.datatype, built.array.dtype) == (name, datatype, array.dtype)
    np.testing.assert_array_equal(built.array, array)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", None),
        ("prompt", b"bytes"),
        ("prompt", 5),
        ("prompt", "\udc80"),
        ("seed", True),
        ("seed", 1.0),
        ("seed", "7"),
        ("seed", 2**63),
        ("num_frames", 2**31),
        ("width", -(2**31) - 1),
        ("guidance_scale", "7.5"),
        ("guidance_scale", False),
        ("guidance_scale", [1.0, 2.0]),
        ("guidance_scale", 10**400),
        ("budget", 1.5),
        ("budget", True),
        ("budget", b"fast"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(name, value):
    with pytest.raises(InvalidRequestError, match=f"^{name}: "):
        tensor(**{name: value})


def test_what_is_none_is_left_out():
    assert [built.name for built in build_inputs({"prompt": "x", "seed": None, "budget": "full"})] == [
        "prompt",
        "budget",
    ]


def test_the_batch_dimension_leads():
    (built,) = add_batch_dimension(build_inputs({"prompt": "x"}))
    assert built.array.shape == (1, 1)
    assert built.array.item() == b"x"


def _server_table(specs):
    return {spec.name: spec.triton_type.removeprefix("TYPE_").replace("STRING", "BYTES") for spec in specs}


def test_client_and_server_agree_on_the_tensors():
    assert _server_table(server.STREAM_INPUTS) == protocol.INPUT_TYPES
    assert _server_table(server.OUTPUTS) == protocol.OUTPUT_TYPES
    assert all(spec.dims == (1,) for spec in server.STREAM_INPUTS)
    assert FILE_FORMATS == server.FILE_FORMATS
