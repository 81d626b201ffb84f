"""What the client's tests share: a transport that needs no server, and a real server with a tiny model."""

from __future__ import annotations

import json
import socket
import time

import numpy as np
import pytest

from lemica_backend.triton_server import TritonServer
from tests.client.repository import make_repository
from tests.client.stand_in import add_stand_in

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
    """Answers at once and remembers what it was asked; `raises` is raised by every call, `failing` by one each."""

    can_stream_frames = True

    def __init__(self, *, config=CONFIG, info=INFO, ready=(True,), raises=None, failing=()):
        self.config, self.info, self.ready, self.raises = config, info, list(ready), raises
        self.known_models = []
        self.failing, self.pauses_s = list(failing), []
        self.requests, self.config_reads, self.is_closed = [], 0, False

    async def is_ready(self, model, timeout_s):
        answer = self.ready.pop(0) if len(self.ready) > 1 else self.ready[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def model_config(self, model, timeout_s):
        self.config_reads += 1
        if self.raises:
            raise self.raises
        return self.config

    async def models(self, timeout_s):
        if isinstance(self.known_models, Exception):
            raise self.known_models
        return self.known_models

    async def infer(self, model, inputs, outputs, timeout_s, regions):
        self.requests.append((model, {tensor.name: tensor for tensor in inputs}, outputs, timeout_s))
        if self.failing:
            raise self.failing.pop(0)
        info = self.info if isinstance(self.info, str) else json.dumps(self.info)
        answers = {
            "video": np.arange(4 * 6 * 8 * 3, dtype=np.uint8).reshape(4, 6, 8, 3),
            "video_file": np.array([b"a file"], dtype=object),
            "info": np.array([info.encode()], dtype=object),
        }
        is_batched = self.config.get("max_batch_size", 0) > 0
        return {name: answers[name][None] if is_batched else answers[name] for name in outputs}

    async def sleep(self, seconds):
        self.pauses_s.append(seconds)
        time.sleep(min(seconds, 0.05))

    async def close(self):
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


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """A real server with the stand-in streaming model `toy_stream` and the large unary model `large`."""
    folder = tmp_path_factory.mktemp("stand_in")
    add_stand_in(folder / "models", "toy_stream", program="stand_in_model.py", is_decoupled=True)
    add_stand_in(folder / "models", "toy", program="large_model.py", is_decoupled=False)
    add_stand_in(folder / "models", "latte_like", program="large_model.py", is_decoupled=False)
    add_stand_in(folder / "models", "large", program="large_model.py", is_decoupled=False)
    with TritonServer(folder / "models", log=folder / "server.log") as server:
        server.wait_ready(timeout_s=180)
        yield server


@pytest.fixture(params=["grpc", "http"])
def stand_in_url(request, stand_in):
    return f"grpc://{stand_in.grpc_url}" if request.param == "grpc" else f"http://{stand_in.http_url}"


@pytest.fixture
def ends(stand_in):
    """Return the lines that the stand-in wrote since the test began, as soon as there is one at least."""
    log = stand_in.model_repository / "toy_stream" / "ends.log"
    before = len(log.read_text().splitlines()) if log.exists() else 0

    def read():
        give_up_at = time.monotonic() + 60
        while time.monotonic() < give_up_at:
            lines = log.read_text().splitlines()[before:] if log.exists() else []
            if lines:
                return lines
            time.sleep(0.05)
        return []

    return read


@pytest.fixture(params=["grpc", "http"])
def url(request, server):
    return f"grpc://{server.grpc_url}" if request.param == "grpc" else f"http://{server.http_url}"
