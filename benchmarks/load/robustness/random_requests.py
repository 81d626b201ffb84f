"""Requests made of random parts: some are valid, most are not, and some are no requests at all."""

from __future__ import annotations

import json
import random
from typing import NamedTuple

from tritonclient.grpc import service_pb2

_STRINGS = ("a red circle moving right", "", "x" * 5000, "\0", "\U0001f600" * 50, "fast", "slow", "ultra", "fast..slow")
_NUMBERS = (0, 1, 2, 3, 6, 7, -1, 4, 2**31 - 1, -(2**31), 2**63 - 1)
_FIELDS = {
    "negative_prompt": "BYTES",
    "seed": "INT64",
    "guidance_scale": "FP32",
    "num_inference_steps": "INT32",
    "height": "INT32",
    "budget": "BYTES",
    "deadline_ms": "INT32",
    "priority": "INT32",
    "client_id": "BYTES",
    "file_format": "BYTES",
    "promt": "BYTES",
}
_TYPES = ("BYTES", "INT64", "INT32", "FP32", "BOOL", "UINT8", "FP16", "NOPE")
_SHAPES: tuple[list[int], ...] = ([1], [1, 1], [1, 2], [0, 1], [5, 1], [-1, 1], [1, 100], [], [2, 1])
# Triton 24.10 makes room for what a JSON body claims before it looks at it, and dies of more than there is memory.
_HUGE = [1, 2**40]
_SIZES = {"INT64": 8, "INT32": 4, "FP32": 4, "FP16": 2}
_MAX_BYTES = 8000
_SHARE_RIGHT = 0.98


class RandomTensor(NamedTuple):
    """An input as it is claimed to be."""

    name: str
    datatype: str
    shape: list[int]
    value: str | int


def random_tensors(rng: random.Random, shape: list[int]) -> list[RandomTensor]:
    """Return inputs, most of them of the right type and of the given shape."""
    names = [name for name in _FIELDS if rng.random() < 0.2]
    names += ["prompt"] if rng.random() < 0.9 else []
    return [_random_tensor(name, rng, shape) for name in names]


def json_request(rng: random.Random, shape: list[int]) -> bytes:
    """Return the body of an HTTP inference request."""
    inputs = [
        {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape, "data": [tensor.value]}
        for tensor in random_tensors(rng, shape)
    ]
    return json.dumps({"inputs": inputs, "outputs": [{"name": "info"}]}).encode()


def generate_request(rng: random.Random) -> bytes:
    """Return the body of ``generate`` and ``generate_stream``."""
    return json.dumps({tensor.name: tensor.value for tensor in random_tensors(rng, [1])}).encode()


def grpc_request(model: str, rng: random.Random, shape: list[int]) -> bytes:
    """Return a gRPC inference request."""
    request = service_pb2.ModelInferRequest(model_name=model)
    for tensor in random_tensors(rng, shape):
        claimed = tensor.shape if rng.random() < _SHARE_RIGHT else _HUGE
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=claimed)
        request.raw_input_contents.append(_random_raw(tensor, rng))
    request.outputs.add(name="info")
    message: bytes = request.SerializeToString()
    return message


def broken(message: bytes, rng: random.Random) -> bytes:
    """Return a message with flipped, lost, repeated or strange bytes."""
    data = bytearray(message)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[at : at + 1] = rng.randbytes(1)
        elif kind == 1:
            del data[at : at + rng.randint(1, 40)]
        elif kind == 2:
            data[at:at] = data[max(0, at - rng.randint(1, 40)) : at]
        else:
            data[at:at] = rng.randbytes(rng.randint(1, 20))
    return bytes(data)


def _random_tensor(name: str, rng: random.Random, shape: list[int]) -> RandomTensor:
    datatype = _FIELDS.get(name, "BYTES") if rng.random() < 0.95 else rng.choice(_TYPES)
    given = shape if rng.random() < 0.93 else rng.choice(_SHAPES)
    value = rng.choice(_STRINGS) if datatype == "BYTES" else rng.choice(_NUMBERS)
    return RandomTensor(name, datatype, given, value)


def _random_raw(tensor: RandomTensor, rng: random.Random) -> bytes:
    if rng.random() < 0.05:
        return rng.randbytes(rng.randint(0, 64))
    if tensor.datatype == "BYTES":
        text = str(tensor.value).encode()[:_MAX_BYTES]
        return len(text).to_bytes(4, "little") + text
    size = _SIZES.get(tensor.datatype, 1)
    number = tensor.value if isinstance(tensor.value, int) else len(tensor.value)
    return (number % (1 << 8 * size)).to_bytes(size, "little")
