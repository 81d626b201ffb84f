"""URLs, and what a client-only install misses."""

import sys

import pytest
from tritonclient.utils import InferenceServerException

from lemica_client import (
    ClientClosedError,
    InvalidRequestError,
    MissingDependencyError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from lemica_client.client import _run
from lemica_client.connection import Address, Connection, parse_url
from lemica_client.grpc_channel import to_error
from lemica_client.transport import open_transport


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("grpc://127.0.0.1:8001", Address("grpc", "127.0.0.1:8001")),
        ("http://triton.example:8000", Address("http", "triton.example:8000")),
        ("http://triton.example:8000/", Address("http", "triton.example:8000")),
        ("localhost:8001", Address("grpc", "localhost:8001")),
        ("[::1]:8001", Address("grpc", "[::1]:8001")),
        ("GRPC://127.0.0.1:8001", Address("grpc", "127.0.0.1:8001")),
        ("grpcs://triton.example:8001", Address("grpc", "triton.example:8001", is_tls=True)),
        ("https://localhost:8000/", Address("http", "localhost:8000", is_tls=True)),
    ],
)
def test_a_url_names_protocol_host_and_port(url, address):
    assert parse_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "grpc://localhost",
        "grpc://:8001",
        "grpcss://localhost:8000",
        "ftp://localhost:21",
        "http://localhost:8000/v2",
        "http://localhost:8000?x=1",
        "http://user@localhost:8000",
        "localhost:0",
        "localhost:65536",
        "localhost:http",
        "http://[::1:8000",
    ],
)
def test_every_other_url_is_refused_with_what_is_allowed(url):
    with pytest.raises(InvalidRequestError, match=r"grpc://HOST:PORT, http://HOST:PORT and HOST:PORT"):
        parse_url(url)


@pytest.mark.parametrize("url", ["grpc://127.0.0.1:8001", "http://127.0.0.1:8000"])
def test_a_missing_tritonclient_names_the_extra(url, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "tritonclient"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("lemica_client.transport_grpc", "lemica_client.transport_http"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "tritonclient", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[client\]' in a checkout of lemica"):
        open_transport(Connection(parse_url(url)))


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nobody_listening_is_unavailable(scheme, unused_port):
    transport = open_transport(Connection(parse_url(f"{scheme}://127.0.0.1:{unused_port}")))
    try:
        with pytest.raises(ServerUnreachableError, match=f"{scheme}://127.0.0.1:{unused_port}: .*refused") as caught:
            _run(transport.model_config("latte_shapes", timeout_s=10))
        assert caught.value.__cause__ is not None
        assert not caught.value.may_be_running
    finally:
        _run(transport.close())


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:9: Failed to connect to remote "
            "host: connect: Connection refused",
            "Connection refused",
        ),
        (
            "errors resolving a.example:1: [field:hostname lookup error:address lookup failed for a.example:1: "
            "Domain name not found]",
            "Domain name not found",
        ),
    ],
)
def test_what_grpc_says_of_no_connection_is_put_short(said, reason):
    failed = InferenceServerException(said, status="StatusCode.UNAVAILABLE")
    error = to_error(failed, parse_url("a.example:1"))
    assert type(error) is ServerUnreachableError
    assert str(error) == f"no server can be reached at grpc://a.example:1: {reason}"
    refused = to_error(InferenceServerException("the queue is full: 8", status="StatusCode.UNAVAILABLE"), None)
    assert (type(refused), str(refused)) == (ServerUnavailableError, "the queue is full: 8")


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_closed_transport_refuses(scheme, unused_port):
    transport = open_transport(Connection(parse_url(f"{scheme}://127.0.0.1:{unused_port}")))
    _run(transport.close())
    _run(transport.close())
    for call in (transport.is_ready, transport.model_config):
        with pytest.raises(ClientClosedError):
            _run(call("latte_shapes", 1.0))
    with pytest.raises(ClientClosedError):
        _run(transport.infer("latte_shapes", [], ["info"], 1.0, {}))
