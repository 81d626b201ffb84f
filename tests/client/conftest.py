"""What the client's tests share: a transport that needs no server, and a real server with a tiny model."""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest

from lemica_backend.triton_server import TritonServer
from tests.client.repository import make_repository

CONFIG = {"max_batch_size": 8, "parameters": {"cache_plan": {"string_value": '{"plan_id": "p1", "budgets": {}}'}}}
INFO = {
    "seed": 7,
    "budget": "fast",
    "computed_steps": [0, 3, 9],
    "num_inference_steps": 10,
    "predicted_error": 0.125,
    "fps": 8,
    "timings_ms": {"total": 1500.0},
}


class FakeTransport:
    """Answers at once and remembers what it was asked; `raises` is raised by every call."""

    def __init__(self, *, config=CONFIG, info=INFO, ready=(True,), raises=None):
        self.config, self.info, self.ready, self.raises = config, info, list(ready), raises
        self.requests, self.config_reads, self.is_closed = [], 0, False

    def is_ready(self, model, timeout_s):
        answer = self.ready.pop(0) if len(self.ready) > 1 else self.ready[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def model_config(self, model, timeout_s):
        self.config_reads += 1
        if self.raises:
            raise self.raises
        return self.config

    def infer(self, model, inputs, outputs, timeout_s):
        self.requests.append((model, {tensor.name: tensor for tensor in inputs}, outputs, timeout_s))
        info = self.info if isinstance(self.info, str) else json.dumps(self.info)
        answers = {
            "video": np.arange(4 * 6 * 8 * 3, dtype=np.uint8).reshape(4, 6, 8, 3),
            "video_file": np.array([b"a file"], dtype=object),
            "info": np.array([info.encode()], dtype=object),
        }
        is_batched = self.config.get("max_batch_size", 0) > 0
        return {name: answers[name][None] if is_batched else answers[name] for name in outputs}

    def close(self):
        self.is_closed = True


@pytest.fixture
def make_transport():
    return FakeTransport


@pytest.fixture
def unused_port():
    """A port of this machine that nobody listens on: bound, so that nobody else gets it, but not listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    repository = make_repository(folder / "models")
    with TritonServer(repository, log=folder / "server.log") as server:
        server.wait_ready(timeout_s=180)
        yield server


@pytest.fixture(params=["grpc", "http"])
def url(request, server):
    return f"grpc://{server.grpc_url}" if request.param == "grpc" else f"http://{server.http_url}"
