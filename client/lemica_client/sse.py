"""Streams over HTTP: Triton's ``generate_stream`` takes JSON and answers with server-sent events.

It returns every output a model makes, pixels as JSON numbers, so a stream over HTTP asks for the encoded file only, as
base64 text. An error has no status code there, but its message may begin with one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np

from lemica_client.errors import LemicaClientError, ServerError, error_from_status
from lemica_client.events import read_json_object
from lemica_client.protocol import InputTensor
from lemica_client.transport import Arrays

_UNTOLD = ("200", "400")  # what Triton 24.10 says of every error of a model's stream, whatever it is


def stream_path(model: str) -> str:
    """Return the path to post to."""
    return f"/v2/models/{quote(model, safe='')}/generate_stream"


def stream_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of the post."""
    return {**headers, "Content-Type": "application/json", "Accept": "text/event-stream"}


def stream_body(inputs: list[InputTensor]) -> bytes:
    """Return the request as JSON, each input a plain value; files are text, there and back.

    Examples
    --------
    >>> stream_body([InputTensor("seed", "INT64", np.array([7]))])
    b'{"seed": 7, "file_encoding": "base64"}'
    """
    values = {tensor.name: _plain(tensor.name, tensor.array.item()) for tensor in inputs}
    return json.dumps({**values, "file_encoding": "base64"}).encode()


def read_line(line: bytes, status: int) -> Arrays | None:
    """Return the outputs in one line of the stream; None for a line without data.

    Raises
    ------
    LemicaClientError
        What an ``error`` line stands for.
    ServerError
        If the line cannot be read.
    """
    text = line.strip()
    if not text.startswith(b"data:"):
        return None
    answer = read_json_object(text.removeprefix(b"data:"), "an event of the stream")
    if "error" in answer:
        raise stream_error(status, str(answer["error"]))
    return {name: array for name in ("info", "video_file") if (array := _output(answer, name)) is not None}


def stream_error(status: int, text: str) -> LemicaClientError:
    """Return the error of a stream; one whose status and message name no code is a `ServerError`."""
    code = str(status)
    return error_from_status(None if code in _UNTOLD else code, text)


def refusal(status: int, body: bytes) -> LemicaClientError:
    """Return the error of an answer that is no stream: of Triton itself, or of a proxy."""
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace")[:500] or f"HTTP status {status}"
    return error_from_status(str(status), text)


def _plain(name: str, value: Any) -> Any:
    if name == "image":
        return base64.b64encode(value).decode()
    return value.decode() if isinstance(value, bytes) else value


def _output(answer: dict[str, Any], name: str) -> Any:
    value = answer.get(name)
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    if not value:
        return None
    try:
        data = base64.b64decode(value, validate=True) if name == "video_file" else str(value).encode()
    except (ValueError, TypeError) as exc:
        raise ServerError(f"{name} of the stream is not base64: {exc}") from exc
    return np.array([data], dtype=np.object_)
