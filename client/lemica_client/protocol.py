"""The tensors of a `lemica` model: names, data types, and how a Python value becomes an array.

The one table of the client; `config.pbtxt` is its other half. Knows numpy, nothing about a transport.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemica_client.errors import InvalidRequestError
from lemica_client.image import image_bytes

DataType = Literal["BYTES", "INT32", "INT64", "FP32", "UINT8"]

INPUT_TYPES: dict[str, DataType] = {
    "prompt": "BYTES",
    "negative_prompt": "BYTES",
    "image": "BYTES",  # of a file
    "seed": "INT64",
    "guidance_scale": "FP32",
    "num_inference_steps": "INT32",
    "height": "INT32",
    "width": "INT32",
    "num_frames": "INT32",
    "budget": "BYTES",
    "deadline_ms": "INT32",
    "priority": "INT32",
    "client_id": "BYTES",
    "file_format": "BYTES",
    "file_encoding": "BYTES",
    "preview_every": "INT32",  # of streaming models only
}
STREAM_INPUT_TYPES: dict[str, DataType] = {"preview_every": "INT32", "file_encoding": "BYTES"}  # beside INPUT_TYPES
OUTPUT_TYPES: dict[str, DataType] = {"video": "UINT8", "video_file": "BYTES", "info": "BYTES"}

_INTEGERS: dict[DataType, type[np.signedinteger[Any]]] = {"INT32": np.int32, "INT64": np.int64}


class InputTensor(NamedTuple):
    """One input of a request: `array` has shape (1,), or (1, 1) where the model takes batches."""

    name: str
    datatype: DataType
    array: NDArray[Any]


def build_inputs(options: Mapping[str, object]) -> list[InputTensor]:
    """Turn a request's options into input tensors of shape (1,); an option that is None is left out.

    Parameters
    ----------
    options : mapping
        Values by tensor name. A ``budget`` may be a number: it travels as text.

    Raises
    ------
    InvalidRequestError
        If a value has the wrong type or does not fit its tensor; nothing is rounded or cut.

    Examples
    --------
    >>> [(tensor.name, tensor.array) for tensor in build_inputs({"prompt": "a cat", "seed": 7, "height": None})]
    [('prompt', array([b'a cat'], dtype=object)), ('seed', array([7]))]
    """
    return [_build_input(name, value) for name, value in options.items() if value is not None or name == "prompt"]


def add_batch_dimension(tensors: list[InputTensor]) -> list[InputTensor]:
    """Give every array the leading dimension that a model with ``max_batch_size`` > 0 expects."""
    return [tensor._replace(array=tensor.array[None]) for tensor in tensors]


def _build_input(name: str, value: object) -> InputTensor:
    datatype = INPUT_TYPES.get(name) or STREAM_INPUT_TYPES[name]
    if name == "image":
        return InputTensor(name, datatype, np.array([image_bytes(value)], dtype=np.object_))
    if datatype == "BYTES":
        return InputTensor(name, datatype, _text_array(name, value))
    if datatype == "FP32":
        return InputTensor(name, datatype, _float_array(name, value))
    return InputTensor(name, datatype, _integer_array(name, value, _INTEGERS[datatype]))


def _text_array(name: str, value: object) -> NDArray[Any]:
    if name == "budget" and not isinstance(value, str | bool):
        value = str(_to_int(name, value))
    if not isinstance(value, str):
        raise InvalidRequestError(f"{name}: got {_describe(value)}; allowed is a string")
    try:
        return np.array([value.encode()], dtype=np.object_)
    except UnicodeEncodeError as exc:
        raise InvalidRequestError(f"{name}: the text is not valid Unicode ({exc})") from exc


def _integer_array(name: str, value: object, dtype: type[np.signedinteger[Any]]) -> NDArray[Any]:
    number, limits = _to_int(name, value), np.iinfo(dtype)
    if not limits.min <= number <= limits.max:
        raise InvalidRequestError(f"{name}: got {number}; allowed is {limits.min} to {limits.max}")
    return np.array([number], dtype=dtype)


def _to_int(name: str, value: object) -> int:
    # A bool is an int to Python, but seed=True is a mistake; a float is never rounded.
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        allowed = "a name or a whole number" if name == "budget" else "a whole number"
        raise InvalidRequestError(f"{name}: got {_describe(value)}; allowed is {allowed}") from None


def _float_array(name: str, value: object) -> NDArray[Any]:
    if isinstance(value, bool | np.bool_ | str):
        raise InvalidRequestError(f"{name}: got {_describe(value)}; allowed is a number")
    try:
        with np.errstate(over="ignore"):  # beyond float32 is inf, which the server refuses in its own words
            return np.array([float(value)], dtype=np.float32)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequestError(f"{name}: got {_describe(value)}; allowed is a number") from None


def _describe(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
