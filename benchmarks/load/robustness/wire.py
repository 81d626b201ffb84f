"""Calls of a server byte by byte: whatever is sent, a word says how it ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import grpc
import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

SILENT, CLOSED = "silent", "closed"
_SERVICE = "/inference.GRPCInferenceService"
_INTEGERS = {"seed": "INT64"}  # the others are INT32


class Target(NamedTuple):
    """A server with a model and its streaming twin; both addresses are host and port."""

    http_url: str
    grpc_url: str
    model: str
    stream: str


class StreamEnd(NamedTuple):
    """How a gRPC stream of one request ended: in a word, and how many last responses it had."""

    outcome: str
    finals: int


@asynccontextmanager
async def opened_channel(url: str) -> AsyncIterator[grpc.aio.Channel]:
    """Return a gRPC channel for large videos, with a connection of its own."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(url, options=options) as channel:
        yield channel


def http_request(path: str, body: bytes, length: int | None = None) -> bytes:
    """Return a POST; `length` is what it claims to carry, if that is not true."""
    length = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


async def http_exchange(url: str, request: bytes, patience_s: float) -> str:
    """Send bytes, read to the end, and return ``http STATUS``, ``closed`` or ``silent``."""
    host, _, port = url.rpartition(":")
    try:
        async with asyncio.timeout(patience_s):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(request)
                await writer.drain()
                answer = await reader.read()
            finally:
                writer.close()
    except TimeoutError:
        return SILENT
    except ConnectionError:
        return CLOSED
    words = answer.split(b"\r\n", 1)[0].split()
    return f"http {words[1].decode(errors='replace')}" if len(words) > 1 else CLOSED


async def grpc_exchange(channel: grpc.aio.Channel, message: bytes, patience_s: float) -> str:
    """Send a unary request and return ``grpc STATUS`` or ``silent``."""
    try:
        await channel.unary_unary(f"{_SERVICE}/ModelInfer")(message, timeout=patience_s)
    except grpc.aio.AioRpcError as error:
        return _word(error)
    return "grpc OK"


async def stream_exchange(channel: grpc.aio.Channel, message: bytes, patience_s: float) -> StreamEnd:
    """Send one request on a stream of its own, and read to the stream's end."""
    outcome, finals = "grpc OK", 0
    try:
        async for answer in channel.stream_stream(f"{_SERVICE}/ModelStreamInfer")(iter([message]), timeout=patience_s):
            response = service_pb2.ModelStreamInferResponse.FromString(answer)
            if response.error_message:
                outcome = "refused" if "UNAVAILABLE" in response.error_message else "error"
            is_final = response.infer_response.parameters["triton_final_response"].bool_param
            finals += bool(response.error_message) or is_final
    except grpc.aio.AioRpcError as error:
        outcome = _word(error)
    return StreamEnd(outcome, finals)


def json_body(model_shape: list[int], values: Mapping[str, str | int]) -> bytes:
    """Return the body of an HTTP request; only ``info`` comes back."""
    inputs = [
        {"name": name, "datatype": _datatype(name, value), "shape": model_shape, "data": [value]}
        for name, value in values.items()
    ]
    return json.dumps({"inputs": inputs, "outputs": [{"name": "info"}]}).encode()


def grpc_message(model: str, shape: list[int], request_id: str, values: Mapping[str, str | int]) -> bytes:
    """Return a request for gRPC; only ``info`` comes back, and a stream says which response is the last."""
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    request.outputs.add(name="info")
    for name, value in values.items():
        request.inputs.add(name=name, datatype=_datatype(name, value), shape=shape)
        request.raw_input_contents.append(raw(_datatype(name, value), value))
    if len(shape) == 2:  # Triton's parameter is for streams; the backend refuses those that it does not know
        del request.parameters["triton_enable_empty_final_response"]
    message: bytes = request.SerializeToString()
    return message


def raw(datatype: str, value: str | int) -> bytes:
    """Return one element as it goes over the wire."""
    if datatype == "BYTES":
        packed: bytes = serialize_byte_tensor(np.array([str(value).encode()], np.object_)).item()
        return packed
    return np.array([value], np.int64 if datatype == "INT64" else np.int32).tobytes()


def _datatype(name: str, value: str | int) -> str:
    return "BYTES" if isinstance(value, str) else _INTEGERS.get(name, "INT32")


def _word(error: grpc.aio.AioRpcError) -> str:
    return SILENT if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED else f"grpc {error.code().name}"
