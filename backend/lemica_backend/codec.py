"""Tensors to requests and results to tensors; knows nothing of Triton, so it is tested without it.

What the engine alone can judge (sizes, steps and budgets against the model and the plan) is left to it.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemica_backend.config import Limits
from lemica_backend.errors import InvalidRequestError
from lemica_backend.image_file import read_image
from lemica_backend.protocol import FILE_ENCODINGS, FILE_FORMATS, INPUTS, OUTPUTS, TensorSpec
from lemica_backend.types import GenerationRequest, GenerationResult, Image
from lemica_backend.video_file import check_size, encode_video

MAX_SEED = 2**63 - 1
_MAX_NAME_BYTES = 64  # of file_format, and of each end of budget
_MAX_BUDGET_BYTES = 2 * _MAX_NAME_BYTES + len("..")
_MAX_CLIENT_ID_BYTES = 256
_TRITON_PARAMETERS = frozenset({"id"})  # the generate endpoint passes the request's id on as a parameter
_OUTPUT_NAMES = tuple(spec.name for spec in OUTPUTS)

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class OutputOptions:
    """What to make of the results.

    Attributes
    ----------
    names : frozenset of str
        The outputs to make.
    file_formats : tuple of str
        One for each row.
    is_base64 : bool
        Whether files, `image` among them, are base64 text, for JSON; then no raw frames are made.
    preview_every : int or None
        Steps after which progress carries a preview.
    """

    names: frozenset[str]
    file_formats: tuple[str, ...]
    is_base64: bool = False
    preview_every: int | None = None


@dataclass(frozen=True)
class DecodedBatch:
    """The rows of one Triton request."""

    requests: list[GenerationRequest]
    options: OutputOptions


def decode_requests(
    tensors: Tensors,
    requested_outputs: Collection[str],
    parameters: Mapping[str, object],
    *,
    limits: Limits,
    timeout_us: int = 0,
    inputs: Sequence[TensorSpec] = INPUTS,
    request_id: str = "",
) -> DecodedBatch:
    """Read one Triton request.

    Parameters
    ----------
    tensors : mapping of str to ndarray, each of shape (N, 1)
        Strings as arrays of bytes. N rows, each a video to make.
    requested_outputs : collection of str
    parameters : mapping
        The request's parameters; options are tensors, so there should be none.
    limits : Limits
    timeout_us : int
        The request's own Triton timeout in microseconds; 0 is none. It ends the request, and promises nothing.
    inputs : sequence of TensorSpec
        What the model takes.
    request_id : str
        What logs call it; rows of several are told apart by their number.

    Raises
    ------
    InvalidRequestError
        If anything is missing, unknown or has a value that is not allowed.
    """
    specs = {spec.name: spec for spec in inputs}
    _refuse_parameters(parameters, specs)
    _require_known("output", requested_outputs, _OUTPUT_NAMES)
    _require_known("input", tensors, tuple(specs))
    num_rows = _count_rows(tensors, specs)
    rows = [_Row(tensors, row, num_rows, limits) for row in range(num_rows)]
    ids = [request_id] if num_rows == 1 else [f"{request_id}[{row}]" for row in range(num_rows)]
    requests = [row.decode(timeout_us, id_of_row) for row, id_of_row in zip(rows, ids, strict=True)]
    options = _options(rows, frozenset(requested_outputs))
    _check_frames(requests, options)
    return DecodedBatch(requests, options)


def encode_results(results: Sequence[GenerationResult], options: OutputOptions, *, fps: int) -> dict[str, NDArray[Any]]:
    """Make the outputs that were asked for, each with a leading dimension of rows.

    Raises
    ------
    InvalidRequestError
        If a video does not fit the file format.
    """
    infos = [dict(result.info) for result in results]
    outputs: dict[str, NDArray[Any]] = {}
    if "video_file" in options.names:
        files = [_encode_file(*row, fps) for row in zip(results, infos, options.file_formats, strict=True)]
        outputs["video_file"] = _column([base64.b64encode(file) for file in files] if options.is_base64 else files)
    if "video" in options.names:
        outputs["video"] = np.stack([result.frames for result in results])
    if "info" in options.names:
        outputs["info"] = _column([json.dumps(info, allow_nan=False).encode() for info in infos])
    return outputs


def _options(rows: Sequence[_Row], names: frozenset[str]) -> OutputOptions:
    encodings = {row.file_encoding() for row in rows}
    if len(encodings) > 1:
        raise InvalidRequestError("file_encoding must be the same in every row of a request")
    is_base64 = encodings == {"base64"}
    names = names - {"video"} if is_base64 else names  # pixels as a list of JSON numbers are of use to nobody
    return OutputOptions(names, tuple(row.file_format() for row in rows), is_base64, rows[0].preview_every())


class _Row:
    """One row of a request's tensors; every error names the row if there are several."""

    def __init__(self, tensors: Tensors, row: int, num_rows: int, limits: Limits) -> None:
        self._values = {name: tensor[row, 0] for name, tensor in tensors.items()}
        self._where = f"row {row}: " if num_rows > 1 else ""
        self._limits = limits

    def decode(self, timeout_us: int, request_id: str) -> GenerationRequest:
        positive = partial(self._integer, low=1)
        prompt = self._text("prompt", self._limits.max_prompt_bytes)
        assert prompt is not None  # _count_rows saw to it
        return GenerationRequest(
            prompt=prompt,
            negative_prompt=self._text("negative_prompt", self._limits.max_prompt_bytes) or "",
            seed=self._integer("seed", low=0, high=MAX_SEED),
            guidance_scale=self._finite("guidance_scale"),
            num_inference_steps=positive("num_inference_steps"),
            height=positive("height"),
            width=positive("width"),
            num_frames=positive("num_frames"),
            budget=self._text("budget", _MAX_BUDGET_BYTES),
            deadline_ms=positive("deadline_ms"),
            timeout_ms=math.ceil(timeout_us / 1000) or None,
            priority=self._integer("priority") or 0,
            client_id=self._text("client_id", _MAX_CLIENT_ID_BYTES) or "",
            request_id=request_id,
            image=self._image(),
        )

    def file_format(self) -> str:
        return self._choice("file_format", FILE_FORMATS)

    def file_encoding(self) -> str:
        return self._choice("file_encoding", FILE_ENCODINGS)

    def preview_every(self) -> int | None:
        return self._integer("preview_every", low=1)

    def _image(self) -> Image | None:
        value = self._values.get("image")
        if value is None:
            return None
        data, limit = value.encode() if isinstance(value, str) else bytes(value), self._limits.max_image_bytes
        if len(data) > (-(-limit // 3) * 4 if self.file_encoding() == "base64" else limit):
            raise self._error(f"image has {len(data)} bytes; its file may have {limit}: make it smaller")
        try:
            data = base64.b64decode(data, validate=True) if self.file_encoding() == "base64" else data
            return read_image(data, max_pixels=self._limits.max_image_pixels)
        except binascii.Error as error:
            raise self._error(f"image is not base64, which file_encoding says that it is: {error}") from error
        except InvalidRequestError as error:
            raise self._error(str(error)) from error

    def _choice(self, field: str, allowed: Sequence[str]) -> str:
        name = self._text(field, _MAX_NAME_BYTES)
        if name is not None and name not in allowed:
            raise self._error(f"{field} is {name!r}; allowed are {', '.join(allowed)}")
        return name or allowed[0]

    def _text(self, name: str, max_bytes: int) -> str | None:
        value = self._values.get(name)
        if value is None:
            return None
        raw = value.encode() if isinstance(value, str) else bytes(value)
        if len(raw) > max_bytes:
            raise self._error(f"{name} has {len(raw)} bytes; at most {max_bytes} are allowed")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            fault = f"byte 0x{raw[error.start]:02x} at position {error.start}"
            raise self._error(f"{name} is not valid UTF-8 ({fault}); only UTF-8 is allowed") from error

    def _integer(self, name: str, *, low: int | None = None, high: int | None = None) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        number = int(value)
        if low is not None and number < low:
            allowed = f"at least {low} is" if high is None else f"{low} to {high} are"
            raise self._error(f"{name} is {number}; {allowed} allowed, or leave it out")
        return number

    def _finite(self, name: str) -> float | None:
        value = self._values.get(name)
        if value is None:
            return None
        if not math.isfinite(value):
            raise self._error(f"{name} is {value}; any finite number is allowed, or leave it out")
        return float(str(value))  # 4.1 as FP32 means 4.1, not 4.099999904632568

    def _error(self, message: str) -> InvalidRequestError:
        return InvalidRequestError(self._where + message)


def _refuse_parameters(parameters: Mapping[str, object], specs: Mapping[str, TensorSpec]) -> None:
    unknown = sorted(set(parameters) - _TRITON_PARAMETERS)
    if unknown:
        raise InvalidRequestError(
            f"unknown request parameter {_shown(unknown)}; none is allowed: options are inputs, of {', '.join(specs)}"
        )


def _require_known(kind: str, given: Collection[str], known: Sequence[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InvalidRequestError(f"unknown {kind} {_shown(unknown)}; allowed are {', '.join(known)}")


def _shown(names: Sequence[str]) -> str:
    """Quote at most a few names, each cut: an error must fit into the header that carries it."""
    return ", ".join(repr(name[:_MAX_NAME_BYTES]) for name in names[:5]) + (", ..." if len(names) > 5 else "")


def _count_rows(tensors: Tensors, specs: Mapping[str, TensorSpec]) -> int:
    if "prompt" not in tensors:
        raise InvalidRequestError("the input prompt is missing; every request needs it (STRING, one a row)")
    num_rows = len(tensors["prompt"]) if tensors["prompt"].ndim else 0
    for name, tensor in tensors.items():
        _check_tensor(specs[name], tensor, num_rows)
    return num_rows


def _check_tensor(spec: TensorSpec, tensor: NDArray[Any], num_rows: int) -> None:
    if num_rows < 1 or tensor.shape != (num_rows, 1):
        expected = f"[{num_rows}, 1]" if num_rows else "[rows, 1]"
        raise InvalidRequestError(f"{spec.name} has the shape {list(tensor.shape)}; allowed is {expected}")
    if tensor.dtype != spec.dtype:
        raise InvalidRequestError(
            f"{spec.name} has elements of type {tensor.dtype}; allowed is {np.dtype(spec.dtype)} ({spec.triton_type})"
        )


def _check_frames(requests: Sequence[GenerationRequest], options: OutputOptions) -> None:
    sizes = {(request.num_frames, request.height, request.width) for request in requests}
    if "video" in options.names and len(sizes) > 1:
        raise InvalidRequestError(
            "the output video is one array, so num_frames, height and width must be the same in every row of a "
            "request; send requests of different sizes apart, or ask for video_file"
        )
    if "video_file" in options.names:
        for request, file_format in zip(requests, options.file_formats, strict=True):
            check_size(file_format, request.height or 0, request.width or 0)


def _encode_file(result: GenerationResult, info: dict[str, Any], file_format: str, fps: int) -> bytes:
    """Encode, and account for it in `info`, a copy of the result's own."""
    start = time.perf_counter()
    data = encode_video(result.frames, file_format, fps)
    encode_ms = round((time.perf_counter() - start) * 1e3, 3)
    timings_ms = info.get("timings_ms", {})
    info["timings_ms"] = {**timings_ms, "encode": encode_ms, "total": round(timings_ms.get("total", 0) + encode_ms, 3)}
    return data


def _column(values: Sequence[bytes]) -> NDArray[np.object_]:
    column = np.empty((len(values), 1), dtype=np.object_)
    column[:, 0] = values
    return column
