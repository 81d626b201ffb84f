"""A streaming model, called over gRPC and over server-sent events."""

from __future__ import annotations

import http.client
import json
import queue

import numpy as np
import tritonclient.grpc

from tests.server.callers import DTYPES

PREVIEW = {"preview_every": np.int32}


def one_row(name, value):
    """Return a value as a model without batches takes it."""
    return np.array([value.encode() if isinstance(value, str) else value], (DTYPES | PREVIEW).get(name, np.object_))


class GrpcStream:
    """One gRPC stream."""

    def __init__(self, server):
        self.client = tritonclient.grpc.InferenceServerClient(server.grpc_url)
        self._answers = queue.Queue()
        self.client.start_stream(lambda result, error: self._answers.put(error or result))

    def send(self, model="tiny_stream", *, outputs=("info",), request_id="", caller=None, **values):
        tensors = caller.tensors(**{name: one_row(name, value) for name, value in values.items()})
        wanted = [tritonclient.grpc.InferRequestedOutput(name) for name in outputs]
        self.client.async_stream_infer(
            model, tensors, outputs=wanted, request_id=request_id, enable_empty_final_response=True
        )

    def next(self, timeout_s=60):
        """Return the next response: an error, or (the event, whether it is the last response, the result)."""
        answer = self._answers.get(timeout=timeout_s)
        if isinstance(answer, Exception):
            return answer
        is_final = answer.get_response().parameters["triton_final_response"].bool_param
        info = answer.as_numpy("info")
        return (json.loads(info[0]) if info is not None else None), is_final, answer

    def rest(self):
        """Return responses up to the last one, or an error, which is the last one."""
        answers = []
        while not answers or (isinstance(answers[-1], tuple) and not answers[-1][1]):
            answers.append(self.next())
        return answers

    def is_silent(self, seconds=0.5):
        try:
            self._answers.get(timeout=seconds)
        except queue.Empty:
            return True
        return False

    def close(self, *, cancel=False):
        self.client.stop_stream(cancel_requests=cancel)
        self.client.close()


class Sse:
    """One request of ``/generate_stream``."""

    def __init__(self, server, model="tiny_stream", path="generate_stream", **values):
        self._connection = http.client.HTTPConnection(server.http_url, timeout=60)
        body = json.dumps(values)
        self._connection.request("POST", f"/v2/models/{model}/{path}", body, {"Connection": "close"})
        self._response = None

    @property
    def response(self):
        if self._response is None:
            self._response = self._connection.getresponse()
        return self._response

    def next(self):
        """Return the next event, whole; None after the last one."""
        for line in iter(self.response.readline, b""):
            if line.startswith(b"data: "):
                return json.loads(line.removeprefix(b"data: "))
        return None

    def rest(self):
        return list(iter(self.next, None))

    def close(self):
        if self._response is not None:
            self._response.close()
        self._connection.close()
