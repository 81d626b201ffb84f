"""One real server for all tests that only send requests to it."""

import pytest

from lemica_backend.triton_server import TritonServer
from tests.server import repository
from tests.server.callers import Caller
from tests.tiny_open_sora import build_tiny_open_sora


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A repository of models that work beside models that are broken."""
    folder = tmp_path_factory.mktemp("models")
    repository.make_planned_model(folder / "tiny")
    repository.make_model(folder / "narrow", settings={"limits": {"max_active": 1, "max_queue": 2}})
    repository.make_model(
        folder / "unbatched",
        config=repository.BARE_CONFIG + 'input { name: "prompt" data_type: TYPE_STRING dims: 1 }',
    )
    repository.make_model(folder / "open_sora", settings={"family": "open_sora"}, build=build_tiny_open_sora)
    repository.make_stream(folder / "tiny_stream", "tiny")
    repository.make_stream(folder / "narrow_stream", "narrow")
    repository.make_broken_models(folder)
    return folder


@pytest.fixture(scope="session")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("log") / "server.log"


@pytest.fixture(scope="session")
def server(models, log):
    with TritonServer(models, log=log) as server:
        server.wait_ready(timeout_s=300)
        yield server


@pytest.fixture(scope="session", params=["http", "grpc"])
def caller(request, server):
    caller = Caller(request.param, server)
    yield caller
    caller.close()


@pytest.fixture
def grpc(server):
    caller = Caller("grpc", server)
    yield caller
    caller.close()
