"""One way to call a server over HTTP and over gRPC, with tritonclient and no code of ours."""

from __future__ import annotations

import json

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

DTYPES = {"seed": np.int64, "guidance_scale": np.float32} | dict.fromkeys(
    ("num_inference_steps", "height", "width", "num_frames", "deadline_ms", "priority"), np.int32
)
INVALID = {"http": "400", "grpc": "StatusCode.INVALID_ARGUMENT"}
INTERNAL = {"http": "500", "grpc": "StatusCode.INTERNAL"}
UNAVAILABLE = {"http": "503", "grpc": "StatusCode.UNAVAILABLE"}


class Caller:
    """Calls one server; `status` of an error is an HTTP code or a gRPC status by name."""

    def __init__(self, protocol, server):
        self.protocol = protocol
        self._triton = tritonclient.http if protocol == "http" else tritonclient.grpc
        self._url = server.http_url if protocol == "http" else server.grpc_url
        self.client = self._triton.InferenceServerClient(self._url, **self._options())

    def _options(self):
        return {"network_timeout": 120.0, "concurrency": 4} if self.protocol == "http" else {}

    def infer(self, model="tiny", *, outputs=("info",), parameters=None, timeout=None, request_id="", **values):
        """Send one request; each value is one row or a list of rows, or an array to be sent as it is."""
        wanted = [self._triton.InferRequestedOutput(name) for name in outputs] or None
        options = {"outputs": wanted, "parameters": parameters, "timeout": timeout, "request_id": request_id}
        return self.client.infer(model, self.tensors(**values), **options)

    def info(self, model="tiny", **values):
        """Return the info of a request's first row."""
        return json.loads(self.infer(model, **values).as_numpy("info").ravel()[0])

    def refusal(self, **kwargs):
        """Return the error that a request gets."""
        try:
            self.infer(**kwargs)
        except InferenceServerException as error:
            return error
        raise AssertionError("the request was served")

    def tensors(self, **values):
        return [self._tensor(name, value) for name, value in values.items()]

    def _tensor(self, name, value):
        array = value if isinstance(value, np.ndarray) else column(name, value)
        tensor = self._triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        return tensor

    def close(self):
        self.client.close()


def column(name, value):
    rows = value if isinstance(value, list) else [value]
    return np.array([[row.encode() if isinstance(row, str) else row] for row in rows], DTYPES.get(name, np.object_))
