"""Requests that can never be served: each is told what is allowed, and the server serves the next one."""

import http.client
import json
import struct

import numpy as np
import pytest

from lemica_backend.codec import MAX_SEED
from tests.server.callers import INVALID, column
from tests.tiny_latte import SIZE

pytestmark = pytest.mark.server
MEGABYTE = "x" * (1 << 20)


def strings(*shape):
    return np.full(shape, b"a", dtype=object)


# what Triton itself refuses, in its own words
BY_TRITON = {
    "no input at all": ({}, "missing required input(s) ['prompt']"),
    "wrong type of prompt": ({"prompt": np.ones((1, 1), np.int32)}, "'INT32', but model 'tiny' expects 'BYTES'"),
    "wrong type of seed": (
        {"prompt": "a", "seed": np.ones((1, 1), np.float32)},
        "'FP32', but model 'tiny' expects 'INT64'",
    ),
    "wrong shape": ({"prompt": strings(1, 2)}, "Expected [-1,1], got [1,2]"),
    "no batch dimension": ({"prompt": strings(1)}, "Expected [-1,1], got [1]"),
    "too large a batch": ({"prompt": strings(5, 1)}, "batch-size must be <= 4"),
    "columns of different length": ({"prompt": ["a", "b"], "seed": 1}, "batch size does not match"),
    "unknown input": ({"prompt": "a", "promt": strings(1, 1)}, "unexpected inference input 'promt'"),
    "unknown output": ({"prompt": "a", "outputs": ("frames",)}, "unexpected inference output 'frames'"),
}

BY_US = {
    "missing prompt": ({"seed": 1}, "the input prompt is missing; every request needs it"),
    "invalid UTF-8": ({"prompt": b"a\xff"}, "only UTF-8 is allowed"),
    "1 MB prompt": ({"prompt": MEGABYTE}, "prompt has 1048576 bytes; at most 4096 are allowed"),
    "1 MB negative prompt": (
        {"prompt": "a", "negative_prompt": MEGABYTE},
        "negative_prompt has 1048576 bytes; at most 4096",
    ),
    "more tokens than the model takes": ({"prompt": "x" * 2000}, "120"),
    "negative seed": ({"prompt": "a", "seed": -1}, f"seed is -1; 0 to {MAX_SEED} are allowed"),
    "NaN guidance": (
        {"prompt": "a", "guidance_scale": float("nan")},
        "guidance_scale is nan; any finite number is allowed",
    ),
    "infinite guidance": ({"prompt": "a", "guidance_scale": float("inf")}, "guidance_scale is inf; any finite number"),
    "guidance beyond the limit": (
        {"prompt": "a", "guidance_scale": 3.3e38},
        "guidance_scale is 3.3e+38; allowed are 0 to 3.1e+38",
    ),
    "negative guidance": ({"prompt": "a", "guidance_scale": -1.0}, "guidance_scale is -1; allowed are 0 to 3.1e+38"),
    "no steps": ({"prompt": "a", "num_inference_steps": 0}, "num_inference_steps is 0; at least 1 is allowed"),
    "too many steps": (
        {"prompt": "a", "num_inference_steps": 1001},
        "num_inference_steps is 1001; allowed are 1 to 1000",
    ),
    "steps without a plan": ({"prompt": "a", "num_inference_steps": 7, "budget": "fast"}, "num_inference_steps"),
    "guidance without a plan": ({"prompt": "a", "guidance_scale": 9, "budget": "fast"}, "guidance_scale"),
    "unknown budget": ({"prompt": "a", "budget": "ultra"}, "fast"),
    "budget without steps": ({"prompt": "a", "budget": "5"}, "3"),
    "fractional budget": ({"prompt": "a", "budget": "3.5"}, "fast"),
    "empty budget": ({"prompt": "a", "budget": ""}, "fast"),
    "1 MB budget": ({"prompt": "a", "budget": MEGABYTE}, "budget has 1048576 bytes; at most 130"),
    "height": ({"prompt": "a", "height": 64}, f"height is 64; this model makes {SIZE} only"),
    "width": ({"prompt": "a", "width": 1 << 30}, f"width is {1 << 30}; this model makes {SIZE} only"),
    "frames": ({"prompt": "a", "num_frames": 17}, "num_frames is 17; this model makes 16 only"),
    "negative size": ({"prompt": "a", "height": -1}, "height is -1; at least 1 is allowed"),
    "file format": ({"prompt": "a", "file_format": "avi"}, "file_format is 'avi'; allowed are mp4, gif, webp"),
    "no time": ({"prompt": "a", "deadline_ms": 0}, "deadline_ms is 0; at least 1 is allowed"),
    "unknown parameter": (
        {"prompt": "a", "parameters": {"seed": 1}},
        "unknown request parameter 'seed'; none is allowed",
    ),
    "one bad row": ({"prompt": ["a", "b"], "seed": [1, -1]}, "row 1: seed is -1"),
    "one bad budget": ({"prompt": ["a", "b"], "budget": ["full", "ultra"]}, "row 1: "),
    "rows of different sizes": (
        {"prompt": ["a", "b"], "height": [SIZE, 64], "outputs": ("video",)},
        "must be the same in every row",
    ),
}


@pytest.mark.parametrize("case", BY_TRITON | BY_US)
def test_malformed_request_is_refused_and_the_next_one_served(caller, case):
    request, said = (BY_TRITON | BY_US)[case]
    error = caller.refusal(**request)
    assert error.status() == INVALID[caller.protocol]
    assert said in error.message()
    assert len(error.message()) < 1000
    assert caller.info(prompt="a", num_inference_steps=1)["num_inference_steps"] == 1


def test_many_unknown_parameters_do_not_outgrow_the_error(caller):
    error = caller.refusal(prompt="a", parameters={f"{number}-" + "x" * 1000: 1 for number in range(50)})
    assert error.status() == INVALID[caller.protocol]


def test_refusals_are_no_faults_of_the_server(caller, log):
    before = len(log.read_bytes())
    caller.refusal(prompt="a", seed=-1)
    caller.refusal(prompt=["a", "b"], budget=["full", "ultra"])
    lines = log.read_bytes()[before:].splitlines()
    assert all(line.startswith(b"I") and b"lemica.requests" in line for line in lines)  # no warning, no error


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        json.dumps({"inputs": 3}).encode(),
        json.dumps({"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1, 1], "data": [3]}]}).encode(),
        json.dumps({"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1, -1], "data": ["a"]}]}).encode(),
        json.dumps({"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1, 1], "data": []}]}).encode(),
    ],
    ids=str,
)
def test_body_that_is_no_request(server, caller, body):
    # Triton calls what it cannot parse a fault of its own (24.10); what matters is that it lives
    assert post(server, body, {}) in (400, 500)
    assert caller.info(prompt="a", num_inference_steps=1)


@pytest.mark.parametrize("length", [0, 3, 1 << 31], ids=str)
def test_string_with_a_false_length(server, caller, length):
    data = struct.pack("<I", length) + b"a"
    tensor = {"name": "prompt", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(data)}}
    header = json.dumps({"inputs": [tensor]}).encode()
    assert post(server, header + data, {"Inference-Header-Content-Length": str(len(header))}) == 400
    assert caller.info(prompt="a", num_inference_steps=1)


def test_largest_values_of_each_type_are_no_faults(caller):
    largest = {"seed": MAX_SEED, "priority": 2**31 - 1, "deadline_ms": 2**31 - 1}
    assert caller.info(prompt="a", num_inference_steps=1, **largest)["seed"] == MAX_SEED
    assert caller.info(prompt="", priority=-(2**31), num_inference_steps=1)
    assert caller.info(prompt=column("prompt", b"a\0b"), num_inference_steps=1)


def post(server, body, headers):
    connection = http.client.HTTPConnection(server.http_url, timeout=60)
    connection.request("POST", "/v2/models/tiny/infer", body, headers | {"Connection": "close"})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status
